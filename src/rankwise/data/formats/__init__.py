"""Which reader a file or folder gets: one registry of endings and first bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rankwise.data import archives, encoding
from rankwise.data.formats import delimited, endings, folders, json_rows, lines, sheets
from rankwise.data.opening import Opener, opener, which_of
from rankwise.data.table import SPLIT_NAMES, SPLITS, Reading, Table
from rankwise.errors import UserError, listed

_Open = Callable[[Opener, Reading], Table]


def _parquet(file: Opener, reading: Reading) -> Table:
    from rankwise.data.formats.arrow import open_parquet

    return open_parquet(file)


def _arrow(file: Opener, reading: Reading) -> Table:
    from rankwise.data.formats.arrow import open_arrow

    return open_arrow([file], str(file.path))


def _delimited(file: Opener, reading: Reading) -> Table:
    return delimited.Delimited(encoding.look(file, reading.encoding), reading)


_READERS: tuple[tuple[tuple[str, ...], bytes | None, _Open], ...] = (
    (endings.PARQUET, b"PAR1", _parquet),
    (endings.ARROW, b"ARROW1", _arrow),
    ((), b"\xff\xff\xff\xff", _arrow),  # Arrow's streams
    (endings.SHEETS, b"PK\x03\x04", sheets.Sheet),
    (endings.JSON, None, json_rows.open_json),
    (endings.DELIMITED, None, _delimited),
    (endings.TEXT, None, lines.open_lines),
)
"""Endings, the bytes that files of a kind begin with whatever their ending, and what reads them."""

_OBJECT = re.compile(rb"""\[?\s*\{\s*["']\w+["']\s*:""")
"""how rows of JSON begin, and Python's, which are none"""
_SHARD = re.compile(r"-\d+-of-\d+|[-_]?\d+$")


def open_path(path: Path, part: str | None, reading: Reading, exclude: Sequence[str] = ()) -> Table:
    """The table of a file or of a folder; of a folder's classes some may be left out."""
    return open_folder(path, part, reading, exclude) if path.is_dir() else open_file(path, part, reading)


def open_file(path: Path, part: str | None, reading: Reading) -> Table:
    """The table of a file.

    Raises `UserError` for a file that is absent, empty, a pickle, or no table of texts.
    """
    folder = archives.unpacked(path)
    if folder is not None and part is None:
        return _inside(folder, path, reading)
    if folder is not None and (folder / str(part)).is_file():
        return open_file(folder / str(part), None, reading)
    file = opener(path, part)
    if folder is not None and file.packing != "zip":  # of which a member is read where it is
        raise which_of(path, part, archives.names_in(folder))
    start = file.start()
    if not start:
        raise UserError(f"{path} is empty: expected a table with a text and a label column")
    by_content = [read for _, magic, read in _READERS if magic and start.startswith(magic)]
    not_whole = [read for suffixes, magic, read in _READERS if magic and file.suffix in suffixes]  # which they say
    if by_content or not_whole:
        return [*by_content, *not_whole][0](file, reading)
    by_ending = next((read for suffixes, _, read in _READERS if file.suffix in suffixes), None)
    if reading.labelled and by_ending in (None, lines.open_lines):
        beside = folders.labels_beside(path)
        if beside is not None:
            return folders.ParallelFiles(path, beside, reading)
        of_classes = folders.class_files(path)
        if by_ending is None and of_classes:
            return folders.open_class_files(of_classes, reading)
    first = start.lstrip()
    if (by_ending is None and first[:1] in (b"{", b"[")) or (by_ending is lines.open_lines and _OBJECT.match(first)):
        by_ending = json_rows.open_json
    return (by_ending or lines.open_lines)(file, reading)


def _inside(folder: Path, archive: Path, reading: Reading) -> Table:
    """The table of an archive's files, called by the archive's name."""
    only = archives.only_table(folder)
    if only is not None:
        table = open_file(only, None, reading)
    else:
        try:
            table = open_folder(folder, None, reading)
        except UserError as error:
            raise which_of(archive, None, archives.names_in(folder)) from error
    table.name = table.name.replace(str(folder), str(archive))
    table.notes = [note.replace(str(folder), str(archive)) for note in table.notes]
    return table


def open_folder(folder: Path, part: str | None, reading: Reading, exclude: Sequence[str] = ()) -> Table:
    """The table of a folder: what `datasets` saved, a role's own folder or files, classes as folders or as files."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        from rankwise.data.formats.arrow import open_saved_dataset

        return open_saved_dataset(folder, part, reading)
    visible = folders.visible(folder)
    tables = [path for path in visible if endings.is_table(path)]
    if not reading.labelled and not tables:
        return folders.folder_of_texts(folder)
    names = SPLITS[reading.role]
    of_role = _files_of_role(visible, names)
    if of_role:
        return _parts(of_role, str(folder), part, reading)
    inside = [path for path in visible if path.is_dir()]
    roles = [_role_in(path.name) for path in inside]
    own = next((path for path, role in zip(inside, roles, strict=True) if role in names), None)
    if own is not None and len(set(roles)) == len(roles) and set(roles) <= {*SPLIT_NAMES, *folders.UNLABELLED}:
        return open_folder(own, part, reading, exclude)
    if len(inside) == 1 and any(p.is_dir() or endings.is_table(p) for p in folders.visible(inside[0])):
        return open_folder(inside[0], part, reading, exclude)  # one folder around what is meant
    if inside:
        return folders.class_folders(folder, exclude)
    beside = [path for path in visible if folders.labels_beside(path)]
    if len(beside) == 1:
        return open_file(beside[0], part, reading)
    of_classes = folders.class_files(folder)
    if of_classes:
        return folders.open_class_files(of_classes, reading)
    if (
        len({re.sub(r"\d+", "", path.name) for path in tables}) == 1
    ):  # one, or the parts of a table as Spark writes them
        return _parts(tables, str(folder), part, reading)
    if tables:
        shown = listed([path.name for path in tables], 6)
        raise UserError(
            f"{folder} holds several tables ({shown}): name one, or all of them as parts of one table with a pattern, such as "
            f"'{folder}/*{tables[0].suffix}'"
        )
    return folders.class_folders(folder, exclude)  # which says what is missing


def _parts(paths: Sequence[Path], name: str, part: str | None, reading: Reading) -> Table:
    """The table of a file, or of several one after the other."""
    tables = [open_file(path, part, reading) for path in paths]
    return tables[0] if len(tables) == 1 else Joined(tables, name)


def _role_in(name: str) -> str:
    """The last word of a name, or the first where that alone is a role: `20news-bydate-train`, `train_set`."""
    words = re.split(r"[-_. ]", name.lower())
    return words[0] if words[-1] not in SPLIT_NAMES and words[0] in SPLIT_NAMES else words[-1]


def open_matched(paths: Sequence[Path], name: str, reading: Reading) -> Table:
    """The table of several files that a pattern names: one for each class, or the parts of one table."""
    of_classes = folders.class_files(paths[0])
    if set(of_classes) & set(paths) and all(path.suffix.lower() not in endings.KNOWN for path in paths):
        return folders.open_class_files([path for path in of_classes if path in paths], reading)
    return Joined([open_file(path, None, reading) for path in paths], name)


def _files_of_role(visible: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """The tables whose names say the role: `train.csv`, `train_text.txt`, the shards `train-00000-of-00002.parquet`."""
    stems = {path: path.name.split(".")[0].lower() for path in visible if endings.is_known(path)}
    whole = [path for path, stem in stems.items() if _SHARD.sub("", stem) in names]
    of_texts = {part for n in names for part in (f"{n}_text", f"x_{n}", f"{n}_x")}
    texts = [path for path, stem in stems.items() if stem in of_texts and folders.labels_beside(path)]
    called = [path for path, stem in stems.items() if _role_in(stem) in names]
    return whole or texts or (called if len(called) == 1 else [])


class Joined(Table):
    """Several tables of the same columns, one after the other."""

    def __init__(self, tables: Sequence[Table], name: str) -> None:
        super().__init__(name)
        self._tables = tables
        self._open = tables[0]
        self.columns = tables[0].columns
        self.class_names = tables[0].class_names
        self.facts = [f"{len(tables)} files", *tables[0].facts]
        for table in tables[1:]:
            if set(table.columns) != set(self.columns):
                raise UserError(f"{table.name} has other columns than {tables[0].name}: name one file")

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        self.row = 0
        for table in self._tables:
            self._open = table
            for cells in table.rows(names):
                self.row += 1
                yield cells

    def where(self) -> str:
        return self._open.where()
