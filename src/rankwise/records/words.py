"""words.json: what a classifier of words counts, beside its numbers."""

from __future__ import annotations

from typing import ClassVar

from rankwise.records.record import Record, Upgrade
from rankwise.records.result import Calibration, Decision


class WordsRecord(Record, kw_only=True):
    """The contents of words.json.

    text, label, separator, pair
        Columns of the training's table, what stands between several labels there, and whether its texts are pairs.
    strength
        C of scikit-learn's logistic regression.
    ngrams
        What is counted, by kind, in the order of the columns.
    token
        What a word is, a regular expression; runs of letters where a record does not say.
    fitted_on
        Training rows.
    weight
        Of its logits, where they are added to an encoder's.
    calibration
        Of it alone.
    """

    OMITTED: ClassVar[tuple[str, ...]] = ("decision", "fitted_on", "weight", "separator", "calibration")
    UPGRADES: ClassVar[tuple[Upgrade, ...]] = ()

    version: int = 1
    labels: list[str]
    multi_label: bool = False
    text: list[str] = []
    label: str = "label"
    separator: str | None = None
    pair: bool = False
    preprocess: list[str] = []
    strength: float = 0.0
    ngrams: dict[str, list[str]]
    token: str = r"(?u)\b\w+\b"
    decision: Decision | None = None
    fitted_on: int | None = None
    weight: float = 1.0
    calibration: Calibration | None = None
