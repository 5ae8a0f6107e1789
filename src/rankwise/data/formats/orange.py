"""The header of Orange's tables: names, then a row of types, then a row of roles.

Source: https://orange3.readthedocs.io/projects/orange-data-mining-library/en/latest/reference/data.io.html
"""

from __future__ import annotations

from collections.abc import Sequence

_TYPES = {"", "c", "continuous", "d", "discrete", "s", "string", "t", "time", "text", "basket"}
_ROLES = {"", "class", "c", "meta", "m", "weight", "w", "ignore", "i"}


def declared(names: Sequence[str], below: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], str | None] | None:
    """The text columns and the label that a header declares; None where the two rows below names are rows like others.

    Args:
        below: the two records after the names.
    """
    if len(below) < 2:
        return None
    types, roles = ([cell.strip().lower() for cell in row] + [""] * (len(names) - len(row)) for row in below[:2])
    words = [role.split() for role in roles]
    if not any(types) or not all(kind in _TYPES or _lists_values(kind) for kind in types):
        return None
    if not any(roles) or not all(word in _ROLES or "=" in word for role in words for word in role):
        return None
    texts = tuple(name for name, role in zip(names, words, strict=False) if "include=true" in role)
    labels = [name for name, role in zip(names, words, strict=False) if {"class", "c"} & set(role)]
    return texts, labels[0] if len(labels) == 1 else None


def _lists_values(kind: str) -> bool:
    """A discrete column may list its values in place of a type, as in `ham spam`."""
    return len(kind.split()) > 1
