"""Labelled texts: reading, roles, duplicates, tokens and the order of batches."""

from rankwise.data.roles import Roles, load
from rankwise.data.rows import Rows

__all__ = ["Roles", "Rows", "load"]
