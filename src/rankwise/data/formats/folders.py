"""Texts that are files: folders of classes, a file for each class, and labels in a file beside the texts."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from rankwise.data import charsets, encoding
from rankwise.data.formats import endings
from rankwise.data.formats.lines import Lines
from rankwise.data.opening import MAX_TEXT_CHARS, TOO_LONG, opener
from rankwise.data.table import SAMPLE_ROWS, Reading, Table
from rankwise.errors import UserError, counted

_COLUMNS = ("id", "text", "label")
# What stands beside data and is none.
_ASIDE = ("readme", "license", "licence", "mapping")
_FEW_LINES = 10
_LONGEST_LABEL = 64
UNLABELLED = ("unsup", "unsupervised", "unlabeled", "unlabelled")
"""folders of texts without a class, as IMDB has one"""
_DAMAGED = "of UTF-8 with damaged characters"
_MAX_FILE_BYTES = 4 * MAX_TEXT_CHARS


def visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without what is hidden or made by tools."""
    return sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__")))


_DOCUMENTS = (".md", ".rst", ".yml", ".yaml", ".toml", ".ini", ".cfg", ".xml", ".html", ".log", ".py", ".sh")
"""endings of files that are no classes"""


class TextFiles(Table):
    """Files of one text each, in UTF-8 or, where one is not, in one encoding that suits all those."""

    has_fixed_columns = True

    def __init__(
        self, root: Path, files: Sequence[tuple[Path, str | None]], *, columns: tuple[str, ...], fact: str
    ) -> None:
        super().__init__(str(root))
        self._root = root
        self._files = files
        self.columns = columns
        self.facts = [fact]

    def records(self) -> Iterator[tuple[Any, ...]]:
        others = damaged = 0
        for path, label in self._files:
            self.row += 1
            data = _bytes_of(path)
            try:
                text = data.decode("utf-8-sig")
            except UnicodeDecodeError:
                if encoding.is_mostly_utf8(data):
                    damaged += 1
                    text = data.decode("utf-8-sig", "replace")
                else:
                    others += 1
                    text = charsets.decoded(data, self._fallback)
            yield path.relative_to(self._root).as_posix(), text, label
        if others:
            self.facts = [self.facts[0], f"{others:,} of them in {encoding.name_of(self._fallback)}"]
        if damaged and not any(_DAMAGED in note for note in self.notes):
            self.notes.append(f"{self.name}: {counted(damaged, 'file')} {_DAMAGED}, now U+FFFD")

    def where(self) -> str:
        return str(self._files[self.row - 1][0]) if self.row else self.name

    @cached_property
    def _fallback(self) -> str:
        """The encoding of the files that are not UTF-8."""
        contents = (path.read_bytes() for path, _ in self._files)
        return encoding.of_many(data for data in contents if not encoding.is_mostly_utf8(data))


def class_folders(folder: Path, exclude: Sequence[str] = ()) -> Table:
    """The texts of a folder whose folders are classes and whose files are texts, in sorted order."""
    inside = [p for p in visible(folder) if p.is_dir()]
    classes = [p for p in inside if p.name not in exclude]
    if not classes:
        raise UserError(f"{folder} holds no folders: expected one folder of text files for each class")
    files: list[tuple[Path, str | None]] = []
    for class_folder in classes:
        texts = text_files(class_folder)
        deeper = next((p.name for p in visible(class_folder) if p.is_dir()), None)
        if not texts or deeper:
            what = f"the folder {deeper}" if deeper else "no files"
            raise UserError(f"{class_folder} holds {what}: expected a folder of text files for each class")
        files += [(path, class_folder.name) for path in texts]
    if all(path.suffix.lower() in endings.TABLES for path, _ in files):
        raise UserError(
            f"{files[0][0]} is a table, as are all files of {folder}'s folders: name one of these folders or files"
        )
    table = TextFiles(folder, files, columns=_COLUMNS, fact=f"{len(classes)} class folders")
    table.notes += [
        f"the class '{p.name}' may be texts without a label: data.exclude=[{p.name}] leaves it out"
        for p in classes
        if p.name.lower() in UNLABELLED
    ]
    table.left_out = {p.name for p in inside} & set(exclude)
    return table


def folder_of_texts(folder: Path) -> Table:
    """The texts of a folder without labels, to predict."""
    files = [(path, None) for path in text_files(folder) if not path.name.lower().startswith(_ASIDE)]
    return TextFiles(folder, files, columns=_COLUMNS[:2], fact="a file a text")


def text_files(folder: Path) -> list[Path]:
    """The files of a folder, sorted by name: those that end in .txt, or whatever their ending if none does."""
    files = [p for p in visible(folder) if p.is_file()]
    return [p for p in files if p.suffix.lower() in (".txt", "")] or files


def _bytes_of(path: Path) -> bytes:
    size = path.stat().st_size
    if size > _MAX_FILE_BYTES:
        raise UserError(f"{path} holds {size:,} bytes: {TOO_LONG}")
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16").encode()
    if b"\0" in data:
        raise UserError(f"{path} holds zero bytes and is no text: take it out of the folder")
    return data


# --- a file for each class ----------------------------------------------------------------------------


def class_files(place: Path) -> list[Path]:
    """The files of one text a line that differ in their class alone; none where a place is not such.

    `rt-polarity.pos` and `rt-polarity.neg` share a stem; `pos.txt` and `neg.txt` an ending.

    Args:
        place: a folder, or one of the files.
    """
    folder = place if place.is_dir() else place.parent
    files = [p for p in visible(folder) if p.is_file() and not p.name.lower().startswith(_ASIDE)]
    twins: dict[str, list[Path]] = {}
    for path in files:
        if path.suffix and path.suffix.lower() not in (*endings.KNOWN, *_DOCUMENTS) and not path.suffix[1:].isdigit():
            twins.setdefault(path.stem, []).append(path)
    groups = [group for group in twins.values() if len(group) > 1 and (place in group or place.is_dir())]
    if len(groups) == 1 and all(map(_is_text, groups[0])):
        return groups[0]
    texts = [p for p in files if p.suffix.lower() == ".txt"]
    return texts if place.is_dir() and len(texts) > 1 and len(texts) == len(files) else []


def _is_text(path: Path) -> bool:
    """Whether a file begins as texts do; what lies beside under the same name may be anything."""
    try:
        start = opener(path).start()
    except UserError:
        return False
    return b"\0" not in start and not start.lstrip().startswith((b"%PDF-", b"<?xml", b"{", b"["))


def open_class_files(paths: Sequence[Path], reading: Reading) -> Table:
    """The table of files of one name: a class each, or texts and their labels."""
    labels = [path for path in paths if _holds_labels(path)]
    if len(paths) == 2 and len(labels) == 1:
        (texts,) = set(paths) - set(labels)
        return ParallelFiles(texts, labels[0], reading)
    return ClassFiles(paths, reading)


def _holds_labels(path: Path) -> bool:
    """Whether a file holds few short lines that come again: the labels of another one's lines."""
    with opener(path).open() as file:
        lines = [line.strip() for line in islice(file, SAMPLE_ROWS)]
    return len(lines) >= _FEW_LINES and 5 * len(set(lines)) <= len(lines) and max(map(len, lines)) <= _LONGEST_LABEL


class ClassFiles(Table):
    """A file of one text a line for each class, which its ending names, or its stem where endings are alike."""

    columns: tuple[str, ...] = _COLUMNS
    has_fixed_columns = True

    def __init__(self, paths: Sequence[Path], reading: Reading) -> None:
        by_ending = len({path.suffix for path in paths}) == len(paths)
        names = [path.suffix[1:] if by_ending else path.stem for path in paths]
        super().__init__(str(paths[0].parent / (paths[0].stem + ".*" if by_ending else "*" + paths[0].suffix)))
        self._parts: list[tuple[str, Lines]] = []
        for path, name in zip(paths, names, strict=True):
            self._parts.append((name, Lines(encoding.look(opener(path), reading.encoding))))
        self.facts = [f"a file for each of {', '.join(names)}", *dict.fromkeys(t.facts[0] for _, t in self._parts)]
        self.notes += [note for _, lines in self._parts for note in lines.notes]

    def records(self) -> Iterator[tuple[Any, ...]]:
        for label, lines in self._parts:
            self._open = lines
            for (text,) in lines.rows(["text"]):
                self.row += 1
                yield f"{label}/{lines.row}", text, label

    def where(self) -> str:
        return self._open.where()


# --- labels in a file beside the texts ----------------------------------------------------------------


_BESIDE = {
    "texts?|sentences": ("labels", "label", "classes", "targets"),
    "(?<![a-z])x(?![a-z])": ("y", "Y"),  # X_train.txt with y_train.txt
}
"""what the file of texts has in its name, and what that of their labels has there"""


def labels_beside(path: Path) -> Path | None:
    """The file of labels that belongs to a file of texts: `train_labels.txt` beside `train_text.txt`."""
    likely = [path.with_suffix(ending) for ending in (".labels", ".label") if path.suffix]
    if path.name == "seq.in":  # as sets of intents and slots are kept
        likely.append(path.with_name("label"))
    for text, words in _BESIDE.items():
        stems = [re.sub(text, word, path.stem, flags=re.IGNORECASE) for word in words]
        likely += [path.with_name(stem + path.suffix) for stem in stems]
    return next((beside for beside in likely if beside != path and beside.is_file()), None)


class ParallelFiles(Table):
    """A text a line in one file and its label in the same line of another."""

    columns: tuple[str, ...] = ("text", "label")
    has_fixed_columns = True

    def __init__(self, texts: Path, labels: Path, reading: Reading) -> None:
        super().__init__(str(texts))
        self._texts, self._labels = (Lines(encoding.look(opener(path), reading.encoding)) for path in (texts, labels))
        self.facts = [self._texts.facts[0], f"labels from {labels.name}"]
        self.notes += [*self._texts.notes, *self._labels.notes]
        mapping = next((p for p in visible(texts.parent) if p.name.lower().startswith("mapping")), None)
        if mapping is not None:
            self.notes.append(f"{mapping} names what numbers stand for: data.classes={mapping} takes its names")

    def records(self) -> Iterator[tuple[Any, ...]]:
        texts, labels = self._texts.rows(["text"]), self._labels.rows(["text"])
        for text, label in zip_longest(texts, labels):
            if text is None or label is None:
                raise UserError(
                    f"{self.name} and {self._labels.name} do not have the same number of lines: row {self.row + 1:,} "
                    "is in one alone"
                )
            self.row = self.line = self.row + 1
            yield text[0], label[0]
