"""Well-known encoders by their names, however they are written, and those that packages of the index carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankwise.encoders.families import FAMILIES

KNOWN: Mapping[str, Mapping[str, Any]] = {
    name: shape for family in FAMILIES.values() for name, shape in family.known.items()
}
PACKAGED = {
    "packaged:all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2",
    "packaged:all-mpnet-base-v2": "sentence-transformers/all-mpnet-base-v2",
}
POOLING = {
    "sentence-transformers/all-mpnet-base-v2": "mean",
    "sentence-transformers/all-MiniLM-L6-v2": "mean",
    "sentence-transformers/all-MiniLM-L12-v2": "mean",
}
"""what the published `1_Pooling/config.json` says, for those that have one"""
_SHORT = {name.rpartition("/")[2].lower(): name for name in KNOWN}
_FULL = {name.lower(): name for name in KNOWN}


def full_name(name: str) -> str | None:
    """The organisation/model name of a known encoder, whichever way it was written; None if unknown."""
    if name in PACKAGED:
        return PACKAGED[name]
    return _FULL.get(name.lower()) if "/" in name else _SHORT.get(name.lower())
