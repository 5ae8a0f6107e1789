"""Labelled texts: reading, roles, duplicates, tokens and the order of batches."""

from rankwise.data.roles import Roles, audited, load
from rankwise.data.rows import Rows

__all__ = ["Roles", "Rows", "audited", "load"]
