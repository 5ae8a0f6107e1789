"""Labelled texts: reading, roles, duplicates, tokens and the order of batches.

What people bring goes this way:
    bytes: `opening` (packed or not), `archives`, `foreign` (what is refused), `encoding` and `charsets`
    rows: `formats`, a reader for each kind, chosen in its `__init__`; of delimited files `dialect` has the delimiter and the
        header, `quoting` the quotes; all are a `table`
    columns and labels: `columns` (which), `scheme` and `classes` (cells to class names), `labels` (names to arrays)
    to train: `sources` (one role), `roles` (all, held apart), `folds`, `duplicates`, `remarks` and `report`
    to predict: `streams`
    to the model: `text` and `cleaning`, `tokens`, `batches`
"""

from rankwise.data.roles import Roles, audited, load
from rankwise.data.rows import Rows

__all__ = ["Roles", "Rows", "audited", "load"]
