"""The configuration tree: every key, its type, default and help, said once.

A configuration comes from YAML, a dict or `key=value` overrides, is checked as a whole, and is saved
resolved beside every result, where it runs again as it is.
"""

from rankwise.config.checking import from_dict, readable
from rankwise.config.keys import Keys, apply_overrides, choices, every_key, set_key, suited, with_keys
from rankwise.config.reading import ConfigLike, config_hash, load, replaced, to_dict, to_yaml, tree_of
from rankwise.config.tree import (
    SCOPE_WORDS,
    Adapter,
    Bias,
    Budget,
    Config,
    Data,
    EarlyStopping,
    Fraction,
    Head,
    HeadKind,
    Method,
    Model,
    NonNegative,
    PositiveInt,
    ScopeWord,
    Section,
    Select,
    Train,
)
from rankwise.config.values import alpha_of, max_bytes, max_trainable, parse_count
from rankwise.config.yaml_text import dump_yaml, parse_yaml, read_yaml, write_yaml

__all__ = [
    "SCOPE_WORDS",
    "Adapter",
    "Bias",
    "Budget",
    "Config",
    "ConfigLike",
    "Data",
    "EarlyStopping",
    "Fraction",
    "Head",
    "HeadKind",
    "Keys",
    "Method",
    "Model",
    "NonNegative",
    "PositiveInt",
    "ScopeWord",
    "Section",
    "Select",
    "Train",
    "alpha_of",
    "apply_overrides",
    "choices",
    "config_hash",
    "dump_yaml",
    "every_key",
    "from_dict",
    "load",
    "max_bytes",
    "max_trainable",
    "parse_count",
    "parse_yaml",
    "read_yaml",
    "readable",
    "replaced",
    "set_key",
    "suited",
    "to_dict",
    "to_yaml",
    "tree_of",
    "with_keys",
    "write_yaml",
]
