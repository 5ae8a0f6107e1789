"""rankwise.json: what an adapter's folder says beside PEFT's files, and all that serving it needs to know."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from rankwise.records.record import Record, Tree, Upgrade, of_tree, read
from rankwise.records.result import Calibration, Decision

FILE = "rankwise.json"


class Base(Record, kw_only=True):
    """The frozen encoder under an adapter.

    name
        None where nothing says it: PEFT's own configuration does.
    """

    name: str | None = None
    revision: str | None = None
    precision: str = "auto"
    random_weights: bool = False


class Texts(Record, kw_only=True):
    """How texts become tokens, and where they and their labels stand in a file."""

    text: str | list[str] | None = "text"
    label: str | list[str] | None = None
    label_separator: str | None = None
    pair: bool = False
    preprocess: list[str] = []
    max_length: int | None = None
    truncation: Literal["head", "head_and_tail"] = "head"
    multi_label: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns that hold a text."""
        return [self.text] if isinstance(self.text, str) else self.text or ["text"]


class Made(Record, kw_only=True):
    """Of the training, what predicting follows: the seed of weights that are random, and whether work is compiled."""

    seed: int = 0


class Trained(Record, kw_only=True):
    """The configuration an adapter was trained with, as far as predicting follows it.

    All its other keys are kept as they are: keys of training come, go and are renamed, and an adapter in service outlives
    them.
    """

    model: Base = msgspec.field(default_factory=Base)
    data: Texts = msgspec.field(default_factory=Texts)
    train: Made = msgspec.field(default_factory=Made)
    engine: str = "auto"


def _numbered(tree: Tree) -> None:
    """Version 1 had no version, and all else alike."""


class AdapterRecord(Record, kw_only=True):
    """The contents of rankwise.json; all of it is absent beside an adapter of another program.

    labels
        The classes, in the order of the logits; None where nothing says them.
    words
        Whether the logits of the classifier of words in its folder `words` are added to the encoder's.
    """

    OMITTED: ClassVar[tuple[str, ...]] = ("labels", "calibration", "decision", "words")
    UPGRADES: ClassVar[tuple[Upgrade, ...]] = (_numbered,)

    version: int = 2
    labels: list[str] | None = None
    config: Trained = msgspec.field(default_factory=Trained)
    calibration: Calibration | None = None
    decision: Decision | None = None
    words: bool = False

    @classmethod
    def of(cls, labels: list[str], config: Tree) -> AdapterRecord:
        """The record of an adapter trained with a configuration (`config.to_dict`)."""
        return of_tree(cls, {"version": 2, "labels": labels, "config": config})


def read_adapter(folder: Path) -> AdapterRecord:
    """The record of an adapter's folder; an empty one where another program saved it.

    Raises: UserError when it is damaged, or a key that predicting follows has a value of another kind.
    """
    path = folder / FILE
    return read(path, AdapterRecord) if path.is_file() else AdapterRecord()
