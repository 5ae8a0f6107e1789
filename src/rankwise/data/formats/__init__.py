"""Which reader a file or folder gets: one registry of endings and first bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rankwise.data import archives, encoding
from rankwise.data.formats import delimited, folders, json_rows, json_shapes, lines, sheets
from rankwise.data.opening import PACKED_SUFFIXES, Opener, opener
from rankwise.data.table import Reading, Table
from rankwise.errors import UserError, listed

_Open = Callable[[Opener, Reading], Table]


def _parquet(file: Opener, reading: Reading) -> Table:
    from rankwise.data.formats.arrow import Parquet

    return Parquet(file, reading)


def _delimited(file: Opener, reading: Reading) -> Table:
    return delimited.Delimited(encoding.look(file, reading.encoding), reading)


def _arrow(file: Opener, reading: Reading) -> Table:
    from rankwise.data.formats.arrow import open_arrow

    return open_arrow(file, reading)


READERS: tuple[tuple[tuple[str, ...], bytes | None, _Open], ...] = (
    ((".parquet", ".pq"), b"PAR1", _parquet),
    ((".arrow", ".feather", ".ipc"), b"ARROW1", _arrow),
    ((), b"\xff\xff\xff\xff", _arrow),  # Arrow's streams
    (sheets.SUFFIXES, b"PK\x03\x04", sheets.Sheet),
    (json_rows.SUFFIXES, None, json_rows.open_json),
    (delimited.SUFFIXES, None, _delimited),
    (lines.SUFFIXES, None, lines.open_lines),
)
"""Endings, the bytes that files of a kind begin with whatever their ending, and what reads them."""

SUFFIXES = tuple(suffix for suffixes, _, _ in READERS for suffix in suffixes)
_OBJECT = re.compile(rb"""\[?\s*\{\s*["']\w+["']\s*:""")
"""how rows of JSON begin, and Python's, which are none"""
_SHARD = re.compile(r"-\d+-of-\d+|[-_]?\d+$")


def open_file(path: Path, part: str | None, reading: Reading) -> Table:
    """The table of a file.

    Raises `UserError` for a file that is absent, empty, a pickle, or no table of texts.
    """
    folder = archives.unpacked(path)
    if folder is not None and part is None:
        return _inside(folder, path, reading)
    if folder is not None and part is not None and (folder / part).is_file():
        return open_file(folder / part, None, reading)
    file = opener(path, part)
    start = file.start()
    if not start:
        raise UserError(f"{path} is empty: expected a table with a text and a label column")
    by_content = next((read for _, magic, read in READERS if magic and start.startswith(magic)), None)
    if by_content is not None:
        return by_content(file, reading)
    by_ending = next((read for suffixes, _, read in READERS if file.suffix in suffixes), None)
    if by_ending in (_parquet, _arrow, sheets.Sheet):
        assert by_ending is not None
        return by_ending(file, reading)  # says that the file is not whole
    if reading.labelled and by_ending in (None, lines.open_lines):
        beside = folders.labels_beside(path)
        if beside is not None:
            return folders.ParallelFiles(path, beside, reading)
        of_classes = folders.class_files(path, SUFFIXES)
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
            names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
            raise UserError(
                f"{archive} holds several files ({listed(names, 8)}): name one, as in {archive}[{names[0]}], or unpack it"
            ) from error
    table.name = table.name.replace(str(folder), str(archive))
    table.notes = [note.replace(str(folder), str(archive)) for note in table.notes]
    return table


def open_folder(folder: Path, part: str | None, reading: Reading, exclude: Sequence[str] = ()) -> Table:
    """The table of a folder: what `datasets` saved, a role's own folder or files, classes as folders or as files."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        from rankwise.data.formats.arrow import open_saved_dataset

        return open_saved_dataset(folder, part, reading)
    if not reading.labelled and not any(map(_is_table, folders.visible(folder))):
        return folders.FolderOfTexts(folder)
    names = json_shapes.SPLITS[reading.role]
    of_role = _files_of_role(folder, names)
    if len(of_role) == 1:
        return open_file(of_role[0], part, reading)
    if of_role:
        return Joined([open_file(path, part, reading) for path in of_role], str(folder))
    inside = [p for p in folders.visible(folder) if p.is_dir()]
    roles = {path: _role_in(path.name) for path in inside}
    own = next((path for path, role in roles.items() if role in names), None)
    are_roles = set(roles.values()) <= {*json_shapes.SPLIT_NAMES, *folders.UNLABELLED} and len(
        set(roles.values())
    ) == len(roles)
    if own is not None and are_roles:
        return open_folder(own, part, reading, exclude)
    if len(inside) == 1 and any(p.is_dir() or _is_table(p) for p in folders.visible(inside[0])):
        return open_folder(inside[0], part, reading, exclude)  # one folder around what is meant
    if inside:
        return folders.ClassFolders(folder, exclude, tables=SUFFIXES)
    beside = [path for path in folders.visible(folder) if path.is_file() and folders.labels_beside(path)]
    if len(beside) == 1:
        return open_file(beside[0], part, reading)
    of_classes = folders.class_files(folder, SUFFIXES)
    if of_classes:
        return folders.open_class_files(of_classes, reading)
    tables = [p for p in folders.visible(folder) if _is_table(p)]
    if len(tables) == 1:
        return open_file(tables[0], part, reading)
    if len({re.sub(r"\d+", "", path.name) for path in tables}) == 1:  # as Spark writes the parts of a table
        return Joined([open_file(path, part, reading) for path in tables], str(folder))
    if tables:
        shown = listed([path.name for path in tables], 6)
        raise UserError(
            f"{folder} holds several tables ({shown}): name one, or all of them as parts of one table with a pattern, such as "
            f"'{folder}/*{tables[0].suffix}'"
        )
    return folders.ClassFolders(folder, exclude, tables=SUFFIXES)  # which says what is missing


def _role_in(name: str) -> str:
    """The last word of a name, or the first where that alone is a role: `20news-bydate-train`, `train_set`."""
    words = re.split(r"[-_. ]", name.lower())
    return words[0] if words[-1] not in json_shapes.SPLIT_NAMES and words[0] in json_shapes.SPLIT_NAMES else words[-1]


def _is_table(path: Path) -> bool:
    return (
        path.is_file()
        and bool(set(map(str.lower, path.suffixes)) & {*SUFFIXES, *PACKED_SUFFIXES})
        and path.suffix.lower() != ".txt"
    )


def open_matched(paths: Sequence[Path], name: str, reading: Reading) -> Table:
    """The table of several files that a pattern names: one for each class, or the parts of one table."""
    of_classes = folders.class_files(paths[0], SUFFIXES)
    if set(of_classes) & set(paths) and all(path.suffix.lower() not in SUFFIXES for path in paths):
        return folders.open_class_files([path for path in of_classes if path in paths], reading)
    return Joined([open_file(path, None, reading) for path in paths], name)


def _files_of_role(folder: Path, names: Sequence[str]) -> list[Path]:
    """The tables whose names say the role: `train.csv`, `train_text.txt`, the shards `train-00000-of-00002.parquet`."""
    stems = {path: path.name.split(".")[0].lower() for path in folders.visible(folder) if path.is_file()}
    suffixed = {
        path: stem for path, stem in stems.items() if set(map(str.lower, path.suffixes)) & {*SUFFIXES, *PACKED_SUFFIXES}
    }
    whole = [path for path, stem in suffixed.items() if _SHARD.sub("", stem) in names]
    texts = [
        path
        for path, stem in suffixed.items()
        if stem in {part for n in names for part in (f"{n}_text", f"x_{n}", f"{n}_x")}
    ]
    called = [path for path, stem in suffixed.items() if _role_in(stem) in names]
    return whole or [path for path in texts if folders.labels_beside(path)] or (called if len(called) == 1 else [])


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
