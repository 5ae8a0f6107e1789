"""What files of tables are called at their end."""

from __future__ import annotations

from pathlib import Path

from rankwise.data.opening import PACKED_SUFFIXES

PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
SHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
JSON_LINES = (".jsonl", ".ndjson")
JSON = (".json", *JSON_LINES)
DELIMITED = (".csv", ".tsv", ".tab", ".psv")
TEXT = (".txt",)
TABLES = (*PARQUET, *ARROW, *SHEETS, *JSON, *DELIMITED)
KNOWN = (*TABLES, *TEXT)


def is_known(path: Path) -> bool:
    """Whether a file is called as those are that we read, packed or not."""
    return path.is_file() and not {*KNOWN, *PACKED_SUFFIXES}.isdisjoint(map(str.lower, path.suffixes))


def is_table(path: Path) -> bool:
    """Whether a file is called as a table is, and not as texts are."""
    return is_known(path) and path.suffix.lower() not in TEXT
