"""Text files of one text a line: bare, behind a label and a space, or behind fastText's `__label__` words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from rankwise.data import encoding
from rankwise.data.encoding import Look
from rankwise.data.formats.delimited import Delimited
from rankwise.data.formats.dialect import splits_alike
from rankwise.data.formats.reader import text_of
from rankwise.data.formats.sample import rare_delimiter
from rankwise.data.opening import Opener
from rankwise.data.table import SAMPLE_ROWS, Reading, Table
from rankwise.errors import UserError, listed

SUFFIXES = (".txt",)
_RULE = re.compile(r"\|?\s*:?-{3,}:?\s*(\|\s*:?-{3,}:?\s*)+\|?")
_FASTTEXT = "__label__"
_FEW = 5
"""Words that stand first are labels when there is at most one for every so many lines, or two."""
_SHOWN = 4
_SELDOM = 50
"""and at most one for every so many lines stands first once alone: of a thousand sentences, a tenth begin as no other"""


def open_lines(file: Opener, reading: Reading) -> Table:
    """The table of a text file, by what its lines begin with.

    Raises `UserError` for lines without labels where labels are needed.
    """
    look = encoding.look(file, reading.encoding)
    first = _sample(file, look)
    if not any(line.strip() for line in first):
        raise UserError(f"{file.path} is empty: expected one text a line")
    if 2 * sum(_FASTTEXT in line for line in first) > len(first):
        return FastText(file, look)
    if len(first) > 1 and _RULE.fullmatch(first[1].strip()):
        raise UserError(f"{file.path} is a Markdown table: save it as CSV")
    is_table = file.suffix != ".txt" or reading.labelled or "\t" in first[0]
    if is_table and (reading.delimiter != "auto" or any(splits_alike(file, look, mark) for mark in "\t|;")):
        return Delimited(file, reading, look)
    if not reading.labelled:
        return Lines(file, look)
    if rare_delimiter("".join(first)):
        return Delimited(file, reading, look)
    if _begins_with_labels(first):
        return LabelFirst(file, look, first)
    if file.suffix != ".txt" or splits_alike(file, look, ","):
        return Delimited(file, reading, look)
    raise UserError(
        f"{file.path} holds texts without labels: expected a label and a space before each text, fastText's "
        f"{_FASTTEXT}NAME, a file of labels beside it (train_text.txt with train_labels.txt), or a table"
    )


def _sample(file: Opener, look: Look) -> list[str]:
    with text_of(file, look) as text:
        return [line for line in islice(text, SAMPLE_ROWS) if line.strip()] or [""]


def _begins_with_labels(lines: Sequence[str]) -> bool:
    """Whether the words that stand first are few and come again; of sentences, many stand first once alone."""
    words = [line.split(maxsplit=1) for line in lines]
    if any(len(parts) < 2 for parts in words):
        return False
    counts = Counter(parts[0] for parts in words)
    if not all(any(map(str.isalnum, word)) for word in counts):  # marks of lists and of headings
        return False
    once = sum(count == 1 for count in counts.values())
    return 2 <= len(counts) <= max(2, len(lines) // _FEW) and once <= len(lines) // _SELDOM


class Lines(Table):
    """One text a line. A blank last line is no text."""

    columns: tuple[str, ...] = ("text",)
    has_fixed_columns = True

    def __init__(self, file: Opener, look: Look) -> None:
        super().__init__(str(file.path))
        self._file = file
        self._look = look
        self.facts = [look.name, "one text a line"]
        self.notes += look.notes

    def _lines(self) -> Iterator[str]:
        """Lines without their ends; blank ones only where another line follows."""
        blank = 0
        self.row = self.line = 0
        with text_of(self._file, self._look) as text:
            # Split at \n alone: a text may hold the separators that str.splitlines knows.
            for line in text:
                content = line.rstrip("\r\n")
                if not content.strip():
                    blank += 1
                    continue
                for _ in range(blank):
                    self.line += 1
                    self.row += 1
                    yield ""
                blank = 0
                self.line += 1
                self.row += 1
                yield content

    def rows(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for line in self._lines():
            cells = self._cells(line)
            if cells is not None:
                yield tuple(cells[name] for name in names)

    def _cells(self, line: str) -> dict[str, Any] | None:
        """The cells of a line by column; None for one that is no row."""
        return {"text": line}


class LabelFirst(Lines):
    """A label, a space and a text on each line, as in TREC."""

    columns: tuple[str, ...] = ("text", "label")

    def __init__(self, file: Opener, look: Look, first: Sequence[str]) -> None:
        super().__init__(file, look)
        words = [word for word, _ in Counter(line.split()[0] for line in first).most_common()]
        self._ending = ":" if all(word.endswith(":") for word in words) else ""
        shown = listed([word.removesuffix(self._ending) for word in words], _SHOWN)
        self.facts = [look.name, f"label first: {shown}"]

    def _cells(self, line: str) -> dict[str, Any] | None:
        label, _, text = line.lstrip().partition(" ")
        return {"text": text.strip(), "label": label.removesuffix(self._ending)} if line.strip() else None


class FastText(Lines):
    """`__label__a __label__b text`, as fastText reads it: any number of labels before or behind the text."""

    columns: tuple[str, ...] = ("text", "label")

    def __init__(self, file: Opener, look: Look) -> None:
        super().__init__(file, look)
        self.facts = [look.name, f"fastText's {_FASTTEXT}"]

    def _cells(self, line: str) -> dict[str, Any] | None:
        words = re.split(r"[ \t]", line)
        labels = [word.rstrip(",").removeprefix(_FASTTEXT) for word in words if word.startswith(_FASTTEXT)]
        text = " ".join(word for word in words if not word.startswith(_FASTTEXT)).strip()
        return {"text": text, "label": labels[0] if len(labels) == 1 else labels or None} if line.strip() else None
