"""How a JSON document holds its rows: one after the other, by a key of their own, by column, or by split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from rankwise.data.columns import LABEL_NAMES, TEXT_NAMES, TEXTS_NAMES, is_known
from rankwise.data.formats.json_walk import Walk
from rankwise.data.table import SPLIT_NAMES
from rankwise.errors import UserError

_KEPT = 1000
"""members of an object that are looked at: one of more holds rows by key"""
_BYTES_OF_CHARACTER = 8
"""that a cell of a column takes at most, with its object, beside other columns"""


@dataclass
class Member:
    """What stands under a key: an array, an object or a plain value.

    Attributes:
        count: of its elements.
        start: its first elements.
        keys: an object's first keys.
    """

    kind: Literal["array", "object", "value"]
    count: int = 0
    start: list[Any] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def holds_rows_of_texts(self) -> bool:
        """Whether an array holds objects with a key that texts are called by."""
        first = self.start[0] if self.start else None
        return isinstance(first, dict) and any(name.lower() in (*TEXT_NAMES, *TEXTS_NAMES) for name in first)


@dataclass
class Outline:
    """The first members of an object, and how many it has."""

    members: dict[str, Member]
    count: int


@dataclass(frozen=True)
class Shape:
    """Where the rows of a document are, and how.

    Attributes:
        path: keys that lead to them.
        names: of the columns where rows are lists.
        key: the column of keys where rows, or lists of texts, stand by theirs.
    """

    kind: Literal["rows", "by key", "columns", "table", "one after the other"]
    path: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    key: str = "id"


def outline(walk: Walk) -> Outline:
    """What the object that begins here holds; it is walked over."""
    whole = Outline({}, 0)
    for key in walk.fields():
        whole.count += 1
        member = _member(walk)
        if whole.count <= _KEPT:
            whole.members[key] = member
    return whole


def _member(walk: Walk) -> Member:
    opening = walk.next()
    if opening not in ("[", "{"):
        walk.value()
        return Member("value")
    if opening == "[":
        member = Member("array")
        for element in walk.rows():
            member.count += 1
            if member.count <= _KEPT:
                member.start.append(element)
        return member
    member = Member("object")
    for key in walk.fields():
        member.count += 1
        if member.count == 1:
            member.start.append([] if walk.next() == "[" else {} if walk.next() == "{" else None)
        if member.count <= _KEPT:
            member.keys.append(key)
        walk.skip()
    return member


def shape_of(whole: Outline) -> Shape | None:
    """How an object holds rows; None for one of splits."""
    members = whole.members
    kinds = {member.kind for member in members.values()}
    if {"columns", "data"} <= set(members) and members["data"].start and isinstance(members["data"].start[0], list):
        return Shape("table", names=tuple(map(str, members["columns"].start)))  # pandas, orient="split"
    if kinds == {"array"}:
        return _of_arrays(members)
    return _of_objects(whole) if kinds == {"object"} else None


def _of_arrays(members: dict[str, Member]) -> Shape | None:
    nested = any(isinstance(cell, (dict, list)) for member in members.values() for cell in member.start[:1])
    if "data" in members or SPLIT_NAMES & set(members) or (nested and not any(map(is_known, members))):
        return None
    counts = {name: member.count for name, member in members.items()}
    if not any(map(is_known, members)) and all(map(_holds_texts, members.values())):
        return Shape("by key", key="label")
    if len(set(counts.values())) == 1:
        return Shape("columns")
    if any(map(is_known, members)):
        shown = ", ".join(f"'{name}' {count:,}" for name, count in list(counts.items())[:6])
        raise UserError(f"the columns of a JSON document have unequal numbers of cells ({shown}): write it again")
    return None


def _holds_texts(member: Member) -> bool:
    """Whether an array holds strings of which hardly one comes again: texts, and no column of labels."""
    are_strings = bool(member.start) and all(isinstance(cell, str) for cell in member.start)
    return are_strings and 2 * len(set(member.start)) > len(member.start)


def _of_objects(whole: Outline) -> Shape | None:
    first = next(iter(whole.members.values()))
    if any(map(is_known, whole.members)) and len({member.count for member in whole.members.values()}) == 1:
        return Shape("columns")
    if whole.count > 1 and _hold_texts_of_a_label(whole.members):
        return Shape("by key", key="label")
    if first.start and isinstance(first.start[0], (list, dict)):
        return None
    if any(map(is_known, first.keys)) or whole.count > first.count:
        return Shape("by key")
    return Shape("columns")


def _hold_texts_of_a_label(members: dict[str, Member]) -> bool:
    """Whether every object has a list of texts and no label: its key is that, as in a chatbot's intents by name."""
    keys = [{key.lower() for key in member.keys} for member in members.values()]
    return not SPLIT_NAMES & set(members) and all(own & set(TEXTS_NAMES) and not own & set(LABEL_NAMES) for own in keys)


def rows_of(walk: Walk, shape: Shape) -> Iterator[Any]:
    """The rows of the value that begins here."""
    if shape.kind == "rows":
        yield from walk.rows()
    elif shape.kind == "by key":
        for key in walk.fields():
            if shape.key == "label" and walk.next() == "[":
                yield from ({"text": text, "label": key} for text in walk.rows())
                continue
            row = walk.value()
            yield {shape.key: key, **row} if isinstance(row, dict) else row
    elif shape.kind == "one after the other":
        while walk.next():
            yield walk.value()
    elif shape.kind == "table":
        for key in walk.fields():
            if key != "data":
                walk.skip()
                continue
            for row in walk.rows():
                yield dict(zip(shape.names, row, strict=False)) if isinstance(row, list) else row
    else:
        columns = _columns(walk)
        for cells in zip(*columns.values(), strict=True):
            yield dict(zip(columns, cells, strict=True))


def _columns(walk: Walk) -> dict[str, list[Any]]:
    """Whole columns, which stand one after the other and have to be in memory together."""
    most = _memory() // (2 * _BYTES_OF_CHARACTER)
    columns = {}
    for name in walk.fields():
        cells = walk.rows() if walk.next() == "[" else (walk.value() for _ in walk.fields())
        columns[name] = column = list(islice(cells, _KEPT))
        for cell in cells:
            column.append(cell)
            if walk.passed > most:
                raise UserError(
                    f"{walk.name} holds whole columns one after the other, too many for this machine's memory: write it "
                    'as JSON Lines, one object a row, as pandas does with to_json(orient="records", lines=True)'
                )
    return columns


def _memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 << 30
