"""Labels: from cells to class names, and from names to arrays.

Every class is a name here: the integer 3, the float 3.0 and the CSV cell "3" are all the class "3", and the
float 1.5 is the class "1.5"; true, True and TRUE are one class. Roles that come from different kinds of files so
agree on what a class is. The label of a row is a tuple of names, one unless `multi_label` says that there may be
more.

A number stands for a class by its position only where an order was declared: by the source (a `datasets`
ClassLabel) or by `data.classes`. An order that nobody declared, such as the alphabet's, would be a guess.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rankwise.errors import UserError, listed, nearest

_INTEGER = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
# What numpy prints, without commas: [1. 0. 1.] and ['a' 'b'].
_BITS = re.compile(r"\[\s*[01]\.?(?:\s+[01]\.?)*\s*\]")
_LOOSE_BITS = re.compile(r"[01](?:([ ,;|])[01])(?:\1[01])+")
_WORDS = re.compile(r"""\[\s*(?:'[^']*'|"[^"]*")(?:\s+(?:'[^']*'|"[^"]*"))+\s*\]""")
_TRUTHS = ("false", "true")
_EXACT = 2.0**53
"""from where a float is no whole number to the last digit"""
SEPARATORS = ("|", ",", ";", "#")
"""What stands between the labels of a cell, as files have it; the first joins them where no file says."""
_DOUBTFUL = (" ", "/", "&", "+")
"""what stands there too, and inside of names"""

Label = tuple[str, ...]
Numbers = Mapping[str, str]
"""What the numbers of a declared order stand for, by the number as text."""


class ListOfLabels(ValueError):
    """A cell that holds several labels where one was expected."""


def name_of(cell: Any, numbers: Numbers | None = None) -> str | None:
    """The class name in a cell; None when the cell is empty.

    Raises `ValueError`, saying what the cell holds, for what cannot be a class.
    """
    is_one = isinstance(cell, (list, tuple)) and len(cell) < 2
    if is_one:  # as programs write one label of a text that may have more
        cell = cell[0] if cell else None
    if cell is None or cell != cell:
        return None
    if isinstance(cell, str):
        name = cell.strip()
        number = _INTEGER.fullmatch(name)
        name = number[1] if number else name
    elif isinstance(cell, (bool, np.bool_)):
        name = str(cell)
    elif isinstance(cell, (int, np.integer)):
        name = str(int(cell))
    elif isinstance(cell, (float, np.floating)):
        name = str(int(cell)) if float(cell).is_integer() and abs(cell) < _EXACT else str(cell)
    elif hasattr(cell, "isoformat"):  # a day, as a sheet gives it
        name = str(cell)
    else:
        inside = cell if isinstance(cell, (list, tuple)) else ()
        has_parts = is_one or isinstance(cell, dict) or any(isinstance(item, (dict, list)) for item in inside)
        several = "it marks parts of a text" if has_parts else "lists of labels need data.multi_label: true"
        kind = ListOfLabels if inside and not has_parts else ValueError
        raise kind(f"holds the label {repr(cell)[:60]}, expected a number or a name; {several}")
    if not name or numbers is None or name in numbers.values():
        return name or None
    if name in numbers:
        return numbers[name]
    known = ", ".join(list(numbers.values())[:10])
    expected = f"{next(iter(numbers))} to {list(numbers)[-1]}, or one of {known}" if _INTEGER.fullmatch(name) else known
    raise ValueError(f"holds the label {name}, expected {expected}: the classes that are declared")


def numbered(names: Sequence[str], cells: Iterable[Any]) -> dict[str, str]:
    """What numbers stand for under names declared in order: counted from 0, or from 1 where the cells say so.

    They say so when the last number, which counting from 0 never reaches, occurs and 0 does not.
    """
    single = (str(cell).strip() for cell in cells if not isinstance(cell, (list, tuple)))
    present = {number[1] for cell in single if (number := _INTEGER.fullmatch(cell))}
    from_one = str(len(names)) in present and "0" not in present and not present & set(names)
    return {str(place): name for place, name in enumerate(names, start=int(from_one))}


# --- several labels a text ----------------------------------------------------------------------------


def items(cell: Any, separator: str) -> list[Any] | None:
    """The labels in a multi-label cell: a list, a list written out, or separated names; None when it is missing."""
    if cell is None or (isinstance(cell, float) and cell != cell):
        return None
    if not isinstance(cell, str):
        return list(cell) if isinstance(cell, (list, tuple, np.ndarray)) else [cell]
    written = cell.strip()
    if written[:1] + written[-1:] in ("{}", "()") and (several := _list_in(written)) is not None:
        return several
    if _LOOSE_BITS.fullmatch(written):  # which as labels would stand there twice
        return [int(bit) for bit in written[::2]]
    if not written.startswith("["):
        return [part for part in written.split(separator) if part.strip()]
    found = _list_in(written)
    if found is None:
        raise ValueError(f"holds the labels {written[:60]!r}, which are not a JSON or Python list")
    return found


def _list_in(written: str) -> list[Any] | None:
    """The list that a text is as numpy, JSON or Python write one; None where it is none."""
    if _BITS.fullmatch(written):
        return [int(bit) for bit in re.findall("[01]", written)]
    if _WORDS.fullmatch(written):  # which Python would read as one
        return [single or double for single, double in re.findall(r"""'([^']*)'|"([^"]*)\"""", written)]
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(written, type=list)
    with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        value = ast.literal_eval(written)
        if isinstance(value, (set, frozenset)):
            return sorted(value, key=str)
        if isinstance(value, (list, tuple)):
            return list(value)
    return None


def names_of(cell: Any, numbers: Numbers | None, separator: str) -> Label | None:
    """The class names in a multi-label cell, each once. An empty list or cell is a text without any label."""
    parts = items(cell, separator)
    if parts is None:
        return None
    names = [name_of(part, numbers) for part in parts]
    if None in names:
        raise ValueError("holds an empty label in its list")
    return tuple(dict.fromkeys(name for name in names if name is not None))


def separator_of(cells: Iterable[Any], where: str) -> str:
    """What stands between the labels of a column, found from its different cells.

    It is the one mark by which cells fall into labels that other cells hold too. Raises `UserError` where two would
    do.
    """
    texts = {cell.strip() for cell in cells if isinstance(cell, str) and not cell.strip().startswith("[")}
    present = [mark for mark in SEPARATORS if any(mark in text for text in texts)]
    shared = [mark for mark in present if _recombines(texts, mark)]
    likely = shared or present
    if len(likely) > 1:
        raise UserError(
            f"{where}: labels may be separated by {' or '.join(map(repr, likely))}: say which with "
            f"data.label_separator='{likely[0]}'"
        )
    doubtful = next((mark for mark in _DOUBTFUL if not present and _recombines(texts, mark)), None)
    if doubtful is not None:
        shown = next(text for text in sorted(texts) if doubtful in text)
        raise UserError(
            f"{where}: '{shown}' may be one label or several: data.label_separator='{doubtful}' reads several, "
            f"data.label_separator='{SEPARATORS[0]}' one"
        )
    return likely[0] if likely else SEPARATORS[0]


def may_be_several(names: Iterable[str]) -> str | None:
    """A class name that a common mark splits into what other names hold too; None where none is."""
    texts = set(names)
    mark = _mark_between(texts)
    return next((text for text in sorted(texts) if mark in text), None) if mark else None


def put_together(names: Iterable[str]) -> list[str]:
    """What class names are surely put together of: a mark splits them into names of which there are at most half as many; empty
    where none does, and where each has its place ("Boston, MA"): such a name has fields, and is one class.
    """
    texts = set(names)
    mark = _mark_between(texts)
    split = [[part.strip() for part in text.split(mark)] for text in texts] if mark else []
    parts = {part for each in split for part in each} - {""}
    places = {(place, part) for each in split for place, part in enumerate(each) if part}
    has_fields = len({len(each) for each in split}) == 1 and len(places) == len(parts)
    return [] if has_fields or 2 * len(parts) > len(texts) else sorted(parts)


def _mark_between(texts: set[str]) -> str | None:
    return next((mark for mark in SEPARATORS if _recombines(texts, mark)), None)


def _recombines(texts: set[str], mark: str) -> bool:
    """Whether some label of a cell that a mark splits occurs in another cell too."""
    seen: set[str] = set()
    again = False
    for text in texts:
        parts = {part.strip() for part in text.split(mark)} - {""}
        again = again or bool(parts & seen)
        seen |= parts
    return again and any(mark in text for text in texts)


def are_lists(cells: Sequence[Any]) -> bool:
    """Whether each of several cells is a list written out."""

    written = [cell.strip() if isinstance(cell, str) else "" for cell in cells]
    return len(cells) > 1 and all(text[:1] == "[" and _list_in(text) is not None for text in written)


def multi_hot_width(cells: Iterable[Any], separator: str) -> int:
    """The number of labels when every cell is a list of that many zeros and ones, one a label; else 0."""
    widths = set()
    for cell in cells:
        written = cell.strip() if isinstance(cell, str) else ""
        is_list = isinstance(cell, (list, tuple, np.ndarray)) or written[:1] == "[" or _LOOSE_BITS.fullmatch(written)
        try:
            parts = items(cell, separator) if is_list else None
        except ValueError:  # which is told where the cell's labels are read
            return 0
        if parts is None or any(part not in (0, 1) or isinstance(part, str) for part in parts):
            return 0
        widths.add(len(parts))
    return widths.pop() if len(widths) == 1 and not widths & {0, 1} else 0


def of_bits(cells: Sequence[Any], names: Sequence[str]) -> Label:
    """The labels whose cell holds a one.

    Raises `ValueError` for anything but zeros and ones.
    """
    chosen = []
    for cell, name in zip(cells, names, strict=True):
        bit = name_of(cell)
        truth = "" if bit is None else bit.lower()
        if truth not in ("0", "1", *_TRUTHS):
            raise ValueError(f"holds {cell!r} for the label '{name}', expected 0 or 1")
        if truth in ("1", "true"):
            chosen.append(name)
    return tuple(chosen)


# --- classes ------------------------------------------------------------------------------------------


def order(labels: Iterable[Label], where: str) -> list[str]:
    """Class names of the training labels: numbers in their order, anything else alphabetically.

    Raises `UserError` when there are fewer than two classes.
    """
    present = sorted({name for label in labels for name in label})
    if len(present) < 2:
        found = f"only the class '{present[0]}'" if present else "no label at all"
        raise UserError(f"{where} holds {found}: expected at least two classes")
    if all(_NUMBER.fullmatch(name) for name in present):
        present.sort(key=lambda name: (float(name), name))
    return present


def truth_spellings(counts: Mapping[str, int]) -> dict[str, str]:
    """How each spelling of true and false is written where several occur: as the commonest of each."""
    spelled: dict[str, str] = {}
    for truth in _TRUTHS:
        same = [name for name in counts if name.lower() == truth]
        if len(same) > 1:
            best = max(same, key=lambda name: (counts[name], name.istitle()))
            spelled |= {name: best for name in same if name != best}
    return spelled


def alike(names: Iterable[str]) -> list[str]:
    """Notes on classes that differ in case, in zero-width characters, or in how their accents are encoded."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_folded(name), []).append(name)
    return [
        f"the classes {listed(list(map(repr, group)), 4, ' and ')} differ in {_difference(group)} only: one class written in "
        "several ways?"
        for group in groups.values()
        if len(group) > 1
    ]


def _folded(name: str) -> str:
    if _NUMBER.fullmatch(name):
        return str(Fraction(name))
    return " ".join(unicodedata.normalize("NFC", _visible(name)).casefold().split())


def _visible(name: str) -> str:
    return "".join(c for c in name if unicodedata.category(c) != "Cf")


def _difference(group: Sequence[str]) -> str:
    kinds: dict[str, Callable[[str], str]] = {
        "case": str.casefold,
        "invisible characters": _visible,
        "how accents are encoded": lambda name: unicodedata.normalize("NFC", name),
        "spaces": lambda name: " ".join(name.split()),
    }
    telling = [word for word, fold in kinds.items() if len({fold(name) for name in group}) < len(set(group))]
    return " or ".join(telling) or "how a number is written"


def translator(
    role_names: set[str], classes: Sequence[str], role: str, where: str, numbers: Numbers | None = None
) -> dict[str, int]:
    """The index of every class name that a role uses.

    Args:
        numbers: what numbers stand for, where the training source or data.classes declared it.

    Raises `UserError` for a class that training does not know, with both lists.
    """
    index = {name: i for i, name in enumerate(classes)}
    unseen = sorted(role_names - set(index))
    if not unseen:
        return index
    spelled = {name: own for name in unseen for own in classes if name.lower() == own.lower() in _TRUTHS}
    for stand_in in (numbers, _truths(classes), spelled):
        if stand_in and all(stand_in.get(name) in index for name in unseen):
            return index | {name: index[stand_in[name]] for name in unseen}
    raise UserError(_unseen(unseen, role_names, classes, role, where))


def _truths(classes: Sequence[str]) -> dict[str, str] | None:
    """What 0 and 1 stand for where the classes are false and true."""
    named = {name.lower(): name for name in classes}
    return {"0": named["false"], "1": named["true"]} if set(named) == set(_TRUTHS) else None


def _unseen(unseen: Sequence[str], role_names: set[str], classes: Sequence[str], role: str, where: str) -> str:
    training = listed(classes, 10)
    if all(_INTEGER.fullmatch(name) for name in role_names) and not any(map(_INTEGER.fullmatch, classes)):
        own = ", ".join(sorted(role_names, key=int)[:10])
        return (
            f"{where} ({role}) numbers its labels ({own}) and training names them ({training}): what a number stands "
            "for was never declared, so write the names, or declare the order with data.classes when training"
        )
    shown = listed([f"'{name}'" for name in unseen], 5)
    return (
        f"{where} ({role}) holds {'a label' if len(unseen) == 1 else f'{len(unseen)} labels'} "
        f"unseen in training: {shown}{nearest(unseen[0], classes)}; training has {training}"
    )


# --- arrays -------------------------------------------------------------------------------------------


def to_array(labels: Sequence[Label], index: dict[str, int], classes: int, multi_label: bool) -> NDArray[Any]:
    """Class indices, int64 (rows,), or a multi-hot float32 array (rows, classes)."""
    if not multi_label:
        return np.fromiter((index[names[0]] for names in labels), np.int64, len(labels))
    array = np.zeros((len(labels), classes), dtype=np.float32)
    for row, names in enumerate(labels):
        array[row, [index[name] for name in names]] = 1
    return array


def counts(labels: NDArray[Any], classes: int) -> list[int]:
    """Rows that carry each class, of class numbers (rows,) or zeros and ones (rows, classes)."""
    if labels.ndim == 2:
        return [int(count) for count in labels.sum(axis=0)]
    return [int(count) for count in np.bincount(labels, minlength=classes)]


def strata(labels: NDArray[Any]) -> NDArray[np.int64]:
    """The stratum of each row for a stratified split: its class, or its set of classes. Shape: (rows,)

    Sets of classes that only one row carries share a stratum, since one row cannot be in two roles.
    """
    if labels.ndim == 1:
        return labels.astype(np.int64)
    keys = [row.tobytes() for row in labels]
    number = {key: i for i, (key, count) in enumerate(Counter(keys).items(), start=1) if count > 1}
    return np.array([number.get(key, 0) for key in keys], dtype=np.int64)
