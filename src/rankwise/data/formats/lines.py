"""Text files of one text a line: bare, behind a label and a space, or behind fastText's `__label__` words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from rankwise.data import encoding
from rankwise.data.encoding import Look
from rankwise.data.formats.delimited import Delimited
from rankwise.data.formats.reader import Body
from rankwise.data.formats.sample import Sample
from rankwise.data.opening import Opener
from rankwise.data.table import SAMPLE_ROWS, Reading, Table
from rankwise.errors import UserError, listed

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
    with look.text() as text:
        first = [line for line in islice(text, SAMPLE_ROWS) if line.strip()]
    if not first:
        raise UserError(f"{file.path} is empty: expected one text a line")
    if 2 * sum(_FASTTEXT in line for line in first) > len(first):
        return Lines(look, f"fastText's {_FASTTEXT}", _fasttext)
    if len(first) > 1 and _RULE.fullmatch(first[1].strip()):
        raise UserError(f"{file.path} is a Markdown table: save it as CSV")
    sample = Sample(Body(look))
    is_table = file.suffix != ".txt" or reading.labelled or "\t" in first[0]
    if is_table and (reading.delimiter != "auto" or any(map(sample.splits_alike, "\t|;"))):
        return Delimited(look, reading)
    if not reading.labelled:
        return Lines(look)
    if sample.rare_delimiter():
        return Delimited(look, reading)
    if _begins_with_labels(first):
        return _label_first(look, first)
    if file.suffix != ".txt" or sample.splits_alike(","):
        return Delimited(look, reading)
    raise UserError(
        f"{file.path} holds texts without labels: expected a label and a space before each text, fastText's "
        f"{_FASTTEXT}NAME, a file of labels beside it (train_text.txt with train_labels.txt), or a table"
    )


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
    """One text a line, with a label in it where `split` finds the two. A blank last line is no text, and beside labels none is."""

    has_fixed_columns = True

    def __init__(
        self, look: Look, kind: str = "one text a line", split: Callable[[str], tuple[Any, ...]] | None = None
    ) -> None:
        super().__init__(str(look.file.path))
        self._look = look
        self._split = split
        self.columns = ("text", "label") if split else ("text",)
        self.facts = [look.name, kind]
        self.notes += look.notes

    def records(self) -> Iterator[tuple[Any, ...]]:
        blank, split = 0, self._split
        with self._look.text() as text:
            # Split at \n alone: a text may hold the separators that str.splitlines knows.
            for line in text:
                content = line.rstrip("\r\n")
                if not content.strip():
                    blank += 1
                    continue
                for _ in range(blank):
                    self.line += 1
                    if split is None:
                        self.row += 1
                        yield ("",)
                blank = 0
                self.line += 1
                self.row += 1
                yield split(content) if split else (content,)


def _label_first(look: Look, first: Sequence[str]) -> Table:
    """A label, a space and a text on each line, as in TREC."""
    words = [word for word, _ in Counter(line.split()[0] for line in first).most_common()]
    ending = ":" if all(word.endswith(":") for word in words) else ""

    def split(line: str) -> tuple[Any, ...]:
        label, _, text = line.lstrip().partition(" ")
        return text.strip(), label.removesuffix(ending)

    return Lines(look, f"label first: {listed([word.removesuffix(ending) for word in words], _SHOWN)}", split)


def _fasttext(line: str) -> tuple[Any, ...]:
    """Of `__label__a __label__b text`, as fastText reads it: any number of labels before or behind the text."""
    words = re.split(r"[ \t]", line)
    labels = [word.rstrip(",").removeprefix(_FASTTEXT) for word in words if word.startswith(_FASTTEXT)]
    text = " ".join(word for word in words if not word.startswith(_FASTTEXT)).strip()
    return text, labels[0] if len(labels) == 1 else labels or None
