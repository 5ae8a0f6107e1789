"""YAML texts, read and written as YAML 1.2 has them, by ruamel.yaml.

What looks like a word stays one: dates, `1:30`, `no`, and digits behind a leading zero (`0123456` is a revision, and as
a number it would lose its zero).
"""

from __future__ import annotations

import io
import re
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import BaseResolver

from rankwise import files
from rankwise.errors import UserError
from rankwise.records.record import Tree

_TAG = "tag:yaml.org,2002:"
_FIRST_LINE = "# Written by rankwise; whole with the three dots at its end.\n"
_LAST_LINE = "..."
"""how YAML ends a document: one that is cut at the end of a line is YAML too, with keys fewer"""
_PLAIN = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:0|[1-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}
"""what stands for more than a word, and how it begins: the core schema of YAML 1.2 (chapter 10.3), numbers with
underscores, and without leading zeros as in JSON"""


class _Resolver(BaseResolver):
    """Reads and writes by the same table."""

    processing_version = (1, 2)

    def __init__(self, version: Any = None, loader: Any = None) -> None:
        super().__init__(loader)


for _name, (_pattern, _first) in _PLAIN.items():
    _Resolver.add_implicit_resolver_base(f"{_TAG}{_name}", re.compile(f"(?:{_pattern})$"), list(_first))


class _Representer(SafeRepresenter):
    """Writes every number so that readers of YAML 1.1 have the same number too."""

    def represent_float(self, data: Any) -> Any:
        """1e-05 as 1.0e-05, which to YAML 1.1 would be a word."""
        text = repr(data)
        if "e" not in text or "." in text:
            return super().represent_float(data)
        return self.represent_scalar(f"{_TAG}float", text.replace("e", ".0e"))


_Representer.add_representer(float, _Representer.represent_float)


@cache
def _yaml() -> Any:
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Resolver, yaml.Constructor, yaml.Representer = _Resolver, SafeConstructor, _Representer
    yaml.default_flow_style, yaml.allow_unicode, yaml.width = False, True, 120
    yaml.sort_base_mapping_type_on_output = False
    return yaml


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; `where` names it in the error.

    Raises: UserError when it is no YAML.
    """
    try:
        tree = _yaml().load(text)
        _refuse_circles(tree, [], set())
        return tree
    except (YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{where} is not valid YAML: {reason}{line}") from error


def _refuse_circles(value: Any, around: list[int], seen: set[int]) -> None:
    """An alias may stand inside of what it names: YAML, but no value that could be written down.

    around
        The mappings and lists that this one stands in.
    """
    if not isinstance(value, (dict, list)) or id(value) in seen:
        return
    if id(value) in around:
        raise ValueError("an alias stands inside of what it names")
    for inner in value.values() if isinstance(value, dict) else value:
        _refuse_circles(inner, [*around, id(value)], seen)
    seen.add(id(value))


def dump_yaml(tree: Any) -> str:
    """Plain values as YAML that reads back to the same values, keys in the order given."""
    text = io.StringIO()
    _yaml().dump(tree, text)
    return text.getvalue()


def write_yaml(path: Path, tree: Any) -> None:
    """Replace a file by the tree's YAML, in which `read_yaml` sees whether it is whole."""
    files.write_text(path, f"{_FIRST_LINE}{dump_yaml(tree)}{_LAST_LINE}\n")


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file.

    Raises: UserError when the file cannot be read, was cut short since `write_yaml` or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the configuration {path} cannot be read: {error}") from error
    # Of a file that was cut in its first line there is a part of that.
    written = text.startswith(_FIRST_LINE) or (text and _FIRST_LINE.startswith(text))
    if written and text.splitlines()[-1].strip() != _LAST_LINE:
        raise UserError(f"{path} is damaged: it was cut short, for it does not end with '{_LAST_LINE}'")
    tree = parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        hint = "" if path.suffix in (".yaml", ".yml") else f"; rows of data are named by data.train={path}"
        raise UserError(f"{path} holds a {type(tree).__name__}, expected keys such as 'model:' and 'data:'{hint}")
    return tree
