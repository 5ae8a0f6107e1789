"""Labelled texts: reading, roles, duplicates, tokens and the order of batches."""

from rankwise.data.roles import Roles, Rows, load

__all__ = ["Roles", "Rows", "load"]
