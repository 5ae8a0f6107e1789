"""Dotted keys: which there are, setting them in a nested mapping, refusing those that do not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from rankwise.config.tree import Config, Section
from rankwise.config.yaml_text import parse_yaml
from rankwise.errors import UserError, nearest
from rankwise.records.record import Tree

Keys = dict[str, Any]
"""Dotted configuration keys and their values."""


def set_key(tree: Tree, dotted: str, value: Any) -> None:
    """Put a value at a dotted key of a nested dict, making the sections on the way."""
    *sections, last = dotted.split(".")
    for section in sections:
        if not isinstance(tree.get(section), dict):
            tree[section] = {}
        tree = tree[section]
    tree[last] = value


def with_keys(tree: Mapping[str, Any], keys: Keys) -> Tree:
    """A copy of the tree with values put at dotted keys."""
    result: Tree = msgspec.to_builtins(tree, enc_hook=plain)
    for key, value in keys.items():
        set_key(result, key, value)
    return result


def apply_overrides(tree: Mapping[str, Any], overrides: Sequence[str]) -> Tree:
    """A copy of the tree with `dotted.key=value` words applied; values are YAML.

    Raises: UserError for a word that is no override, an unknown key, or a value that is no YAML.
    """
    result: Tree = msgspec.to_builtins(tree, enc_hook=plain)
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"'{word}' is not an override: write key=value, for example adapter.rank=8")
        check_key(key)
        parsed = _value(value, key)
        if isinstance(parsed, bool | int | float) and _is_text(_annotation(key, Config)):
            parsed = value.strip()  # a column named 1.50, a revision of digits: as they are written
        set_key(result, key, parsed)
    return result


def suited(value: Any, annotation: Any) -> Any:
    """A value as its key wants it, where YAML cannot know: 1e6 and 010 as whole numbers, 2 as the name of a column.

    annotation
        The type of the key, or the section that a mapping is to become.
    """
    section = section_type(annotation)
    if section is not None and isinstance(value, Mapping):
        hints = hints_of(section)
        return {name: suited(each, hints.get(name, Any)) for name, each in value.items()}
    kinds = _kinds(annotation)
    if isinstance(value, list):
        items = next((get_args(kind)[0] for kind in kinds if get_origin(kind) is list), Any)
        return [suited(each, items) for each in value]
    if isinstance(value, float) and int in kinds and value.is_integer() and (float not in kinds or value >= 1):
        return int(value)
    if isinstance(value, str) and {int, float} & set(kinds) and re.fullmatch(r"[-+]?0[0-9]+", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and _is_text(annotation):
        return str(value)
    return value


def _is_text(annotation: Any) -> bool:
    """Whether a key takes any text, and neither numbers nor true and false."""
    kinds = _kinds(annotation)
    return str in kinds and not {int, float, bool} & set(kinds)


def _kinds(annotation: Any) -> list[Any]:
    """The types that a union offers, without what they say of themselves."""
    if get_origin(annotation) in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    if hasattr(annotation, "__metadata__"):
        return _kinds(get_args(annotation)[0])
    return [annotation]


def _value(text: str, key: str) -> Any:
    """The value of an override: YAML, or a mark of punctuation as it stands, such as a delimiter."""
    return text if len(text) == 1 and text in ",;|#\t" else parse_yaml(text, f"the value of {key}")


def plain(value: Any) -> Any:
    """What a value from Python is in YAML: a number of numpy's the number, a Path its text."""
    item = getattr(value, "tolist", None)  # numpy's scalars and arrays have it
    return item() if item is not None else str(value)


@cache
def hints_of(section: type, *, with_help: bool = False) -> Mapping[str, Any]:
    """A section's fields and their types, resolved once: they are written as text, and a check asks for each many times.

    with_help
        Whether the types carry their descriptions.
    """
    return MappingProxyType(get_type_hints(section, include_extras=with_help))


def section_type(annotation: Any) -> type[Section] | None:
    """The section that an annotation stands for, None for a key of its own."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in get_args(annotation) if (found := section_type(part)) is not None), None)


def every_key(section: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every dotted key with its help and default, in the order of the tree; a section that may be null before its keys."""
    hints = hints_of(section, with_help=True)
    for field in msgspec.structs.fields(section):
        annotation = hints[field.name]
        nested = section_type(annotation)
        if nested is None or field.default is None:
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            yield f"{prefix}{field.name}", _help_of(annotation), default
        if nested is not None:
            yield from every_key(nested, f"{prefix}{field.name}.")


def _help_of(annotation: Any) -> str:
    said = (meta.description for meta in getattr(annotation, "__metadata__", ()) if isinstance(meta, Meta))
    return next((text for text in said if text), "")


def choices(dotted: str, root: type = Config) -> list[str]:
    """The words a key may be, or its items or keys where it holds several; none for numbers and free text.

    root
        The structure that the key is a key of.
    """

    def within(node: Any) -> Iterator[str]:
        for part in get_args(node):
            yield from [part] if isinstance(part, str) else within(part)

    return list(dict.fromkeys(within(_annotation(dotted, root))))


def takes_numbers(dotted: str, root: type = Config) -> bool:
    """Whether a key may be a number, beside the words it may be."""
    return not {int, float}.isdisjoint(_kinds(_annotation(dotted, root)))


def _annotation(dotted: str, root: type) -> Any:
    annotation: Any = root
    for part in re.findall(r"[^.\[\]]+", dotted.split("[")[0]):
        section = section_type(annotation)
        if section is None:
            break
        annotation = hints_of(section)[part]
    return annotation


def check_key(dotted: str, section: type[Section] = Config, prefix: str = "") -> None:
    """Refuse a key that does not exist, with the nearest that does."""
    name, _, rest = dotted.partition(".")
    fields = hints_of(section)
    if name not in fields:
        wanted = f"{prefix}{dotted}"
        known = [key for key, _, _ in every_key()] + [f"{prefix}{field}" for field in fields]
        # A leaf under the wrong section (`rank` for `adapter.rank`) is the commonest slip: try the leaf first.
        leaf = [key for key in known if key.rpartition(".")[2] == wanted.rpartition(".")[2]]
        hint = f", did you mean '{leaf[0]}'?" if leaf else nearest(wanted, known)
        raise UserError(f"unknown key '{wanted}'{hint or '; rankwise plan --help lists the keys'}")
    nested = section_type(fields[name])
    if rest and nested is not None:
        check_key(rest, nested, f"{prefix}{name}.")


def check_tree(tree: Mapping[str, Any], prefix: str = "", section: type[Section] = Config) -> None:
    """Refuse a tree with a key that does not exist, with the nearest that does."""
    fields = hints_of(section)
    for name, value in tree.items():
        if "." in str(name):
            first, _, rest = str(name).partition(".")
            raise UserError(f"key '{prefix}{name}' has a dot: nest it here, as {first}: {{{rest}: ...}}")
        check_key(str(name), section, prefix)
        nested = section_type(fields[str(name)])
        if nested is not None and isinstance(value, Mapping):
            check_tree(value, f"{prefix}{name}.", nested)
