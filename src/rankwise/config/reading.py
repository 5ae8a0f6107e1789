"""Configurations from recipes, files, mappings and overrides, and back to YAML."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import msgspec

from rankwise.config.checking import from_dict
from rankwise.config.keys import apply_overrides
from rankwise.config.tree import Config
from rankwise.config.yaml_text import dump_yaml, read_yaml
from rankwise.errors import UserError, nearest
from rankwise.objects import source_of
from rankwise.records.record import Tree


def to_dict(config: Config) -> Tree:
    """The configuration as plain values, for YAML and JSON."""
    result: Tree = msgspec.to_builtins(config)
    return result


def replaced(config: Config, section: str, **values: Any) -> Config:
    """The configuration with other values in one of its sections; they are not checked again."""
    return msgspec.structs.replace(config, **{section: msgspec.structs.replace(getattr(config, section), **values)})


def to_yaml(config: Config) -> str:
    """The configuration as YAML that reads back to the same configuration."""
    return dump_yaml(to_dict(config))


def config_hash(config: Config) -> str:
    """Sixteen hex digits that name the configuration: equal settings, equal hash."""
    return hashlib.sha256(msgspec.json.encode(config, order="deterministic")).hexdigest()[:16]


ConfigLike = Config | Mapping[str, Any] | str | Path


def load(source: ConfigLike | None = None, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a recipe's name, a YAML path, a dict or a `Config`, with overrides applied."""
    return from_dict(tree_of(source, overrides))


def tree_of(source: ConfigLike | None = None, overrides: Sequence[str] = ()) -> Tree:
    """Only the keys that are named, as a nested dict, before defaults and checks."""
    if source is None:
        tree: Mapping[str, Any] = {}
    elif isinstance(source, Config):
        tree = to_dict(source)
    elif isinstance(source, Mapping):
        tree = source
    else:
        tree = read_yaml(_find(source))
    return apply_overrides(_with_paths(tree), overrides)


def _with_paths(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tree with tables from Python as the files that they are kept in."""
    section = tree.get("data")
    roles = ("train", "validation", "test")
    if not isinstance(section, Mapping) or all(isinstance(section.get(role), (str, NoneType)) for role in roles):
        return tree
    paths = {role: source_of(section[role], role) for role in roles if section.get(role) is not None}
    return {**tree, "data": {**section, **paths}}


def _find(source: str | Path) -> Path:
    """The YAML file that a recipe's name or a path stands for."""
    from rankwise import recipes

    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected a YAML file or one of the recipes: {', '.join(recipes.names())}")
    shipped = recipes.path(str(source))
    if shipped is not None:
        return shipped
    raise UserError(
        f"no recipe or file '{source}'{nearest(str(source), recipes.names()) or '; rankwise recipes list shows the shipped ones'}"
    )
