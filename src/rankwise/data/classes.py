"""`data.classes`: the names of classes in their order, or what each number stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rankwise.config import Data
from rankwise.data import encoding
from rankwise.data.opening import existing, opener
from rankwise.errors import UserError

_NUMBERED = re.compile(r"\s*(-?\d+)\s*[\s,;:=|]\s*(.*\S)\s*")
_NAMED = re.compile(r"\s*(.*\S)\s*[\t,;:=|]\s*(-?\d+)\s*")


def declared(data: Data) -> Sequence[str] | Mapping[str, str] | None:
    """The names in their order, or by number; None where nothing is declared.

    Raises `UserError` for a file that is neither, and for a name that stands twice.
    """
    classes = data.classes
    if isinstance(classes, str):
        classes = _read(existing(classes, "data.classes: "))
    if classes is None:
        return None
    names = list(classes.values()) if isinstance(classes, dict) else list(classes)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"data.classes names '{twice}' twice: each class has one place")
    if len(names) < 2:
        raise UserError(f"data.classes names {len(names)} class: expected at least two")
    return classes


def _read(path: Path) -> list[str] | dict[str, str]:
    """Names from a file: one a line, numbers with names, or JSON."""
    with encoding.look(opener(path)).text() as text:
        content = text.read()
    if content.lstrip()[:1] in ("[", "{"):
        return _from_json(path, content)
    lines = [line for line in content.splitlines() if line.strip()]
    for pattern, number, name in ((_NUMBERED, 1, 2), (_NAMED, 2, 1)):
        matches = [pattern.fullmatch(line) for line in lines]
        if not all(matches[1:]) or len(matches) < 2:
            continue  # a first line that does not match is a header
        return {str(int(m[number])): m[name].strip('"') for m in matches if m}
    return [line.strip() for line in lines]


def _from_json(path: Path, content: str) -> list[str] | dict[str, str]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"data.classes: {path} is not JSON: {error}") from error
    if isinstance(value, list):
        return [str(name) for name in value]
    if all(isinstance(number, int) for number in value.values()):
        return {str(number): name for name, number in sorted(value.items(), key=lambda item: item[1])}
    return {str(number): str(name) for number, name in value.items()}
