"""Labels: from cells to class names, and from names to arrays.

Every class is a name here: the integer 3, the float 3.0 and the CSV cell "3" are all the class "3". A source
that declares its classes (a `datasets` ClassLabel) gives integers their names. So roles that come from
different kinds of files agree on what a class is. The label of a row is a tuple of names, one unless
`multi_label` says that there may be more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rankwise.errors import UserError, nearest

_INTEGER = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")

Label = tuple[str, ...]


def name_of(cell: Any, declared: tuple[str, ...] | None) -> str | None:
    """The class name in a cell; None when the cell is empty.

    Raises `ValueError`, saying what the cell holds, for what cannot be a class.
    """
    if cell is None or cell != cell:
        return None
    if isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, int):
        return _declared(cell, declared)
    if isinstance(cell, float):
        if not cell.is_integer():
            raise ValueError(f"holds the label {cell}, expected a whole number or a name")
        return _declared(int(cell), declared)
    if not isinstance(cell, str):
        raise ValueError(
            f"holds the label {repr(cell)[:60]}, expected a whole number or a name; "
            "lists of labels need data.multi_label: true"
        )
    name = cell.strip()
    number = _INTEGER.fullmatch(name)
    return (number[1] if number else name) or None


def _declared(number: int, declared: tuple[str, ...] | None) -> str:
    if declared is None:
        return str(number)
    if not 0 <= number < len(declared):
        raise ValueError(
            f"holds the label {number}, expected 0 to {len(declared) - 1}, the classes the source declares"
        )
    return declared[number]


def names_of(cell: Any, declared: tuple[str, ...] | None, separator: str) -> Label | None:
    """The class names in a multi-label cell: a list, a JSON list, or separated names; each once.

    An empty list or cell is a text without any label; None stands for a missing value.
    """
    if cell is None or (isinstance(cell, float) and cell != cell):
        return None
    if isinstance(cell, str):
        stripped = cell.strip()
        if stripped.startswith("["):
            try:
                cell = msgspec.json.decode(stripped, type=list)
            except msgspec.DecodeError as error:
                raise ValueError(f"holds the labels {stripped[:60]!r}, which are not a JSON list") from error
        else:
            cell = [part for part in stripped.split(separator) if part.strip()]
    elif not isinstance(cell, (list, tuple)):
        cell = [cell]
    names = [name_of(part, declared) for part in cell]
    if None in names:
        raise ValueError("holds an empty label in its list")
    return tuple(dict.fromkeys(name for name in names if name is not None))


def order(labels: Iterable[Label], where: str) -> list[str]:
    """Class names of the training labels: whole numbers in their order, anything else alphabetically.

    Raises `UserError` when there are fewer than two classes.
    """
    present = sorted({name for label in labels for name in label})
    if len(present) < 2:
        found = f"only the class '{present[0]}'" if present else "no label at all"
        raise UserError(f"{where} holds {found}: expected at least two classes")
    if all(_INTEGER.fullmatch(name) for name in present):
        present.sort(key=int)
    return present


def by_position(role_names: set[str], classes: Sequence[str]) -> bool:
    """Whether a role numbers the classes that training names, as a CSV file beside a Hub data set does."""
    numbers = {str(i) for i in range(len(classes))}
    return bool(role_names) and role_names <= numbers and not role_names & set(classes)


def translator(role_names: set[str], classes: Sequence[str], role: str, where: str) -> dict[str, int]:
    """The index of every class name that a role uses.

    Whole numbers stand for classes by position when training names its classes and the role does not. Raises `UserError` for a class that training does not know.
    """
    index = {name: i for i, name in enumerate(classes)}
    unseen = sorted(role_names - set(index))
    if not unseen:
        return index
    if by_position(role_names, classes):
        return {str(i): i for i in range(len(classes))}
    shown = ", ".join(f"'{name}'" for name in unseen[:5]) + (", ..." if len(unseen) > 5 else "")
    raise UserError(
        f"{where} ({role}) holds {'a label' if len(unseen) == 1 else f'{len(unseen)} labels'} "
        f"unseen in training: {shown}{nearest(unseen[0], classes)}; training has {', '.join(classes[:10])}"
        f"{', ...' if len(classes) > 10 else ''}"
    )


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
