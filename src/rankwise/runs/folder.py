"""The layout of a run's folder, and its result.

Prediction files, the ledger of looks and a tracker's files are named where they are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rankwise import config as configuration
from rankwise import files
from rankwise.config import Config
from rankwise.errors import UserError
from rankwise.records import HistoryRow, Result, SearchRecord, history, record
from rankwise.records.record import Tree
from rankwise.records.search import RECORD as SEARCH

RESULT = "result.json"
HISTORY = "history.csv"


@dataclass(frozen=True)
class Run:
    """A run's folder, finished or not.

    Returned by `rankwise.train`; `rankwise.load` turns it into a predictor.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))  # people write it as a string

    @property
    def adapter(self) -> Path:
        """The adapter in PEFT's layout."""
        return self.path / "adapter"

    @property
    def checkpoints(self) -> Path:
        """What a resume needs."""
        return self.path / "checkpoints"

    def predictions(self, role: str) -> Path:
        """The saved predictions of a role."""
        return self.path / f"predictions_{role}.parquet"

    @property
    def config(self) -> Config:
        """The resolved configuration the run was started with.

        Raises: UserError when there is none, or it is damaged.
        """
        path = self.path / "config.yaml"
        if path.is_file() and not path.stat().st_size:
            raise UserError(f"{path} is damaged: it is empty")
        return configuration.load(path)

    @property
    def record(self) -> Result:
        """The contents of result.json.

        Raises: UserError when there is none, the folder not being a run's, or it is damaged.
        """
        return record.read(self.path / RESULT, Result)

    @property
    def result(self) -> Tree:
        """The contents of result.json as plain values, as `--json` prints them."""
        return self.record.to_dict()

    @property
    def is_recorded(self) -> bool:
        """Whether there is a result.json, as there is from the moment on that a run begins."""
        return (self.path / RESULT).is_file()

    def __fspath__(self) -> str:
        return str(self.path)

    def write_record(self, result: Result) -> None:
        """Replace result.json."""
        with record.locked(self.path / RESULT):
            record.write(self.path / RESULT, result)

    def changing(self) -> AbstractContextManager[Result]:
        """result.json to be changed in the block; another process that changes it waits."""
        return record.changing(self.path / RESULT, Result)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the folder, made if need be, as the one process that trains in it. A killed process holds nothing.

        Raises: UserError when another process trains in it.
        """
        files.make_writable_folder(self.path)
        with record.owned(self.path, f"another process is training in {self.path}: wait until it has ended"):
            yield

    def write_config(self, config: Config) -> None:
        """Replace config.yaml."""
        configuration.write_yaml(self.path / "config.yaml", configuration.to_dict(config))

    def write_history(self, rows: Sequence[HistoryRow]) -> None:
        """Replace history.csv."""
        files.write_text(self.path / HISTORY, history.to_csv(rows))

    @property
    def history(self) -> list[dict[str, float | None]]:
        """The rows of history.csv as numbers, None where a cell is empty.

        Raises: UserError when it cannot be read, or is damaged.
        """
        path = self.path / HISTORY
        try:
            return history.of_csv(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError) as error:  # TypeError: a row with more cells than columns
            raise UserError(f"{path} is damaged: {error}") from error


def is_recorded(path: str | Path | Run) -> bool:
    """Whether a folder is a run's or a search's."""
    return any((Path(path) / name).is_file() for name in (RESULT, SEARCH))


def open_run(path: str | Path | Run) -> Run:
    """The run a folder stands for: its own, or the winner's when it is a search's.

    Raises: UserError when the folder is neither.
    """
    folder = Path(path)
    if (folder / RESULT).is_file() and (folder / "config.yaml").is_file():
        return Run(folder)
    if (folder / SEARCH).is_file():
        winner = record.read(folder / SEARCH, SearchRecord).winner
        if winner is not None:
            return open_run(folder / winner.run)
        raise UserError(f"{folder} is a search without a winner yet: finish it with rankwise search --resume")
    if not folder.exists():
        raise UserError(f"no run at {folder}: the folder does not exist")
    raise UserError(f"{folder} is not a run's folder: it holds no result.json beside a config.yaml")
