"""A result file of cells, each measured once: a benchmark that is stopped, or run in short turns, goes on where it was."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rankwise import files
from rankwise.machine import description

Cell = dict[str, Any]


class Cells:
    """The cells of a result file by name, with what they were measured on."""

    def __init__(self, path: Path, given: Namespace, **setting: Any) -> None:
        """setting: what all cells have in common, told in the file."""
        self.path, self.setting = path, setting
        self.cells: dict[str, Cell] = files.read_json(path).get("cells", {}) if path.is_file() else {}
        self._again, self._stop = given.again, time.monotonic() + given.at_most
        self._only: Sequence[str] | None = given.only

    def measure(self, name: str, measured: Callable[[], Cell]) -> Cell | None:
        """The cell of a name, measured unless it is there; None where it is not wanted, or the time is up."""
        if self._only is not None and name not in self._only:
            return self.cells.get(name)
        if name in self.cells and not self._again:
            return self.cells[name]
        if time.monotonic() > self._stop:
            return None
        started = time.monotonic()
        cell = measured()
        about = description.describe().to_dict()
        self.cells[name] = cell | {"took_s": round(time.monotonic() - started, 1), "commit": about.pop("commit")}
        files.write_json(self.path, {**self.setting, "cells": self.cells, "environment": about})
        print(f"{name}: {self.cells[name]}", flush=True)
        return self.cells[name]


def add_arguments(parser: ArgumentParser) -> None:
    """The words that say which cells."""
    parser.add_argument("--only", nargs="+", metavar="CELL", help="cells; all by default")
    parser.add_argument("--again", action="store_true", help="measure what is in the result file anew")
    parser.add_argument(
        "--at-most", type=float, default=float("inf"), metavar="SECONDS", help="begin no cell after these"
    )
