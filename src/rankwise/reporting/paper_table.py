"""A paper's table beside runs of one's own, from result files.

A shipped table is a search file with the paper's numbers under `paper`. Each of its rows names the configuration
keys it stands for (`at`), and the runs whose resolved configuration has those values are set beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise import config as configuration
from rankwise import recipes
from rankwise.errors import UserError, nearest
from rankwise.records.result import Interval
from rankwise.runs.folder import Run
from rankwise.scoring import report

FIGURES = ("stated", "peak", "final", "loss", "hidden", "delta")
"""What a row may give: the number in print, peak and last evaluation by the logs, the loss there, the score on
the papers' hidden set, a change in points. Accuracies are in percent."""

_WIDTH = 240
"""cells of a line at most"""


@dataclass(frozen=True)
class Ours:
    """What the first of our runs at a place reached, and how many there are, of other seeds."""

    run: str
    runs: int
    accuracy: float | None
    accuracy_ci95: Interval | None
    last: float | None
    peak: float | None
    test: TestScore | None
    trainable: int
    train_s: float
    peak_mb: float


@dataclass(frozen=True)
class TestScore:
    """Accuracy on test rows."""

    accuracy: float
    accuracy_ci95: Interval
    examples: int


@dataclass(frozen=True)
class Row:
    """A row of a paper's table: where it stands, what the paper gives, and what our run reached (None: no run)."""

    at: Mapping[str, Any]
    paper: dict[str, float]
    ours: Ours | None


@dataclass(frozen=True)
class PaperTable:
    """A whole table. `stated` says what the paper's main number is, `differs` what is not as in the paper."""

    name: str
    summary: str
    stated: str
    differs: list[str]
    rows: list[Row]

    def text(self) -> str:
        """The table as lines for a terminal."""
        kinds = [kind for kind in FIGURES if any(kind in row.paper for row in self.rows)]
        head = ["", *(f"paper {kind}" for kind in kinds), "ours", "95% interval", "last", "peak", "test", "trainable"]
        shared = _shared(self.rows)
        body = [
            [_label(row.at, shared), *(_figure(row.paper.get(kind)) for kind in kinds), *_cells(row.ours)]
            for row in self.rows
        ]
        lines = [self.summary, f"paper: {self.stated}", "", report.table(head, body, _WIDTH), ""]
        if any(row.ours is None for row in self.rows):
            lines.append(f"rows without a run of ours: run them with  rankwise search {self.name} --out DIR")
        return "\n".join(lines + [f"differs: {each}" for each in self.differs])


def load(name: str, folder: str | Path | None = None) -> PaperTable:
    """A shipped table, with the runs below a folder beside it.

    Raises: UserError when there is no such table, or the folder holds no run.
    """
    path = recipes.table_path(name)
    if path is None:
        hint = nearest(name, recipes.table_names()) or "; rankwise recipes tables lists them"
        raise UserError(f"no table '{name}'{hint}")
    paper = configuration.read_yaml(path)["paper"]
    runs = finished_runs(Path(folder)) if folder is not None else []
    rows = [
        Row(row["at"], {kind: row[kind] for kind in FIGURES if kind in row}, _ours(row["at"], runs))
        for row in paper["rows"]
    ]
    return PaperTable(name, recipes.first_line(path), paper["stated"], list(paper["differs"]), rows)


def finished_runs(folder: Path) -> list[Run]:
    """Every finished run in or below a folder, in the order of their paths.

    Raises: UserError when there is none.
    """
    found = [
        Run(file.parent) for file in sorted(folder.rglob("result.json")) if (file.parent / "config.yaml").is_file()
    ]
    ended = [run for run in found if run.record.ended]
    if not ended:
        raise UserError(f"{folder} holds no finished run")
    return ended


def _ours(at: Mapping[str, Any], runs: Sequence[Run]) -> Ours | None:
    """What the first run at a place reached, and how many runs there are (other seeds)."""
    matching = [run for run in runs if all(_value(run, key) == value for key, value in at.items())]
    if not matching:
        return None
    run = min(matching, key=lambda one: (one.config.train.seed, str(one.path)))
    result = run.record
    chosen, last, test = result.metrics.validation, result.metrics.validation_last, result.metrics.test
    peaks = [row["validation_accuracy"] for row in run.history if row["validation_accuracy"] is not None]
    return Ours(
        run=str(run.path),
        runs=len(matching),
        accuracy=chosen.accuracy if chosen else None,
        accuracy_ci95=chosen.accuracy_ci95 if chosen else None,
        last=last.accuracy if last else None,
        peak=max(peaks) if peaks else None,
        test=TestScore(test.accuracy, test.accuracy_ci95, test.examples) if test else None,
        trainable=result.parameters.trainable,
        train_s=result.timing.train_s,
        peak_mb=result.memory.peak_mb,
    )


def _value(run: Run, dotted: str) -> Any:
    value: Any = configuration.to_dict(run.config)
    for part in dotted.split("."):
        value = value[part]
    return value


# --- text ---------------------------------------------------------------------------------------------


def _shared(rows: Sequence[Row]) -> set[str]:
    """Keys that have one value in all rows, which need not be named in each."""
    keys = {key for row in rows for key in row.at}
    return {key for key in keys if len(rows) > 1 and all(row.at.get(key) == rows[0].at.get(key) for row in rows)}


def _label(at: Mapping[str, Any], shared: set[str]) -> str:
    words = [f"{key.rpartition('.')[2]} {_word(value)}" for key, value in at.items() if key not in shared]
    return ", ".join(words)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return " ".join(f"{key} {inner}" for key, inner in value.items()) or "none"
    if value is None or isinstance(value, bool):
        return "on" if value else "none" if value is None else "off"
    return str(value)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _cells(ours: Ours | None) -> list[str]:
    if ours is None:
        return [""] * 6
    interval = ours.accuracy_ci95
    between = f"{_percent(interval[0])} to {_percent(interval[1])}" if interval else ""
    test = _percent(ours.test.accuracy) if ours.test else ""
    return [_percent(ours.accuracy), between, _percent(ours.last), _percent(ours.peak), test, f"{ours.trainable:,}"]
