"""A saved classifier, read once: its base, its adapter, and how it turns texts into answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.baselines import words
from rankwise.config import Model
from rankwise.data.cleaning import STEPS
from rankwise.encoders import Encoder, encoder_of
from rankwise.encoders.encoder import encoder_from, read_config
from rankwise.errors import UserError
from rankwise.inference import checks, labels
from rankwise.inference.adapter import PROMPTS, AdapterFiles
from rankwise.inference.folders import adapter_folder, words_folder
from rankwise.machine.segments import HEAD
from rankwise.models import holds_tokenizer, sources, tokenizer_of
from rankwise.models.layout import CONFIG
from rankwise.records import record
from rankwise.records.adapter import AdapterRecord, read_adapter
from rankwise.records.result import Decision
from rankwise.records.words import WordsRecord
from rankwise.runs.folder import Run

_HINT = "name the base's folder with base=FOLDER, on the command line model.name=FOLDER"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What is known of a saved classifier before its numbers are read, whatever computes it; of this class it is one of words
    alone. No torch, no peft."""

    folder: Path
    """that its files lie in"""
    label_names: list[str]
    multi_label: bool
    text: list[str]
    """columns it was trained on"""
    label: str | list[str] | None
    """column of the labels it was trained on"""
    separator: str | None
    """between several labels in a cell, where training named one"""
    pair: bool
    """whether the two columns of a text are its pair"""
    preprocess: tuple[str, ...]
    temperature: float | None
    """fitted by `rankwise calibrate`"""
    decision: Decision | None
    """how probabilities become answers, fitted for a goal"""
    words: Path | None
    """folder of the classifier of words whose logits are added to the encoder's, or are all"""
    max_length: int | None = None
    """tokens read of a text, where it is read as tokens"""
    truncation: str = HEAD
    """which of them, of a longer one"""
    engine: str = "auto"
    """of the training"""
    notes: tuple[str, ...] = ()
    """what a reader of its answers should know"""

    def divisor(self, calibrated: bool) -> float:
        """What logits are divided by: the temperature where that is asked for, else 1.

        Raises: UserError when it was never calibrated.
        """
        if calibrated and self.temperature is None:
            raise UserError(f"{self.folder} has no temperature yet: fit one with  rankwise calibrate  on its run")
        return (self.temperature if calibrated else None) or 1.0


@dataclass(frozen=True, kw_only=True)
class SavedClassifier(Saved):
    """One with an encoder."""

    adapter: AdapterFiles
    model: Model
    """the base as it is named: where its files come from, or that it is made of random weights"""
    base: Path | None
    """the base's folder; None where its weights are made anew and none was needed"""
    encoder: Encoder
    max_length: int
    precision: str
    """of the training, as `seed`"""
    seed: int

    def require_no_words(self, what: str) -> None:
        """Raises: UserError where words answer beside the encoder, which `what` has no place for."""
        if self.words is not None:
            raise UserError(
                f"{what} cannot hold {self.folder}: TF-IDF of words answers beside its encoder; name the run without "
                "words, which is among the trials of its search"
            )

    @property
    def embedding_rows(self) -> int:
        """Of the word embedding it computes with."""
        return checks.embedding_rows(self.adapter, self.encoder)

    def tokens_of(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of cleaned texts as it reads them. Shape of each: (tokens,)"""
        from rankwise.data.tokens import encode

        return encode(texts, self.tokenizer, self.max_length, self.truncation)

    @cached_property
    def tokenizer(self) -> Any:
        """The adapter's own, or its base's.

        Raises: UserError when there is none, or it knows tokens that the embedding has no rows for.
        """
        own = holds_tokenizer(self.folder)
        return tokenizer_of(self.folder if own else self.base or self.model, rows=self.embedding_rows)


def read_any(path: str | Path | Run, *, base: str | Path | None = None) -> Saved:
    """`read`, of a classifier of words alone too."""
    folder = words_folder(path)
    if folder is None:
        return read(path, base=base)
    details = record.read(folder / words.DETAILS, WordsRecord)
    return Saved(
        folder=folder,
        label_names=details.labels,
        multi_label=details.multi_label,
        text=details.text or ["text"],
        label=details.label,
        separator=details.separator,
        pair=details.pair,
        preprocess=_known_steps(details.preprocess, folder),
        temperature=details.calibration.temperature if details.calibration else None,
        decision=details.decision,
        words=folder,
    )


def read(path: str | Path | Run, *, base: str | Path | None = None) -> SavedClassifier:
    """Read what a path stands for: a run's folder, a search's (its winner) or any PEFT adapter's.

    base
        The base's folder or name, where the one that the adapter names is not to be had here.

    Raises: UserError when it is none of these, its files are damaged, or they do not belong together.
    """
    adapter = AdapterFiles.open(adapter_folder(path))
    known = read_adapter(adapter.folder)
    model = _base_of(adapter, known, base)
    folder, encoder = _located(model, named=base is not None)
    encoder = encoder.pooled(_pooling(adapter, encoder))
    shapes = checks.shapes_of(folder) if folder else None
    classes = checks.count_classes(adapter, encoder, shapes or {})
    checks.check_fit(adapter, encoder, classes, shapes)
    names, multi_label, notes = _classes(adapter, known, folder, classes)
    trained = known.config
    virtual = int(adapter.config.get("num_virtual_tokens") or 0) if adapter.kind in PROMPTS else 0
    return SavedClassifier(
        folder=adapter.folder,
        adapter=adapter,
        model=model,
        base=folder,
        encoder=encoder,
        label_names=names,
        multi_label=multi_label,
        max_length=trained.data.max_length or encoder.positions - virtual,
        truncation=trained.data.truncation,
        text=trained.data.columns,
        label=trained.data.label,
        separator=trained.data.label_separator,
        pair=trained.data.pair,
        preprocess=_known_steps(trained.data.preprocess, adapter.folder),
        temperature=known.calibration.temperature if known.calibration else None,
        engine=trained.engine,
        precision=trained.model.precision,
        seed=trained.train.seed,
        decision=known.decision,
        words=_words(adapter.folder, names) if known.words else None,
        notes=notes,
    )


def _known_steps(steps: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Raises: UserError for a step of cleaning that this version does not have."""
    strange = [step for step in steps if step not in STEPS]
    if strange:
        raise UserError(f"{folder} was trained on texts cleaned by '{strange[0]}', which this version does not know")
    return tuple(steps)


def _words(folder: Path, label_names: list[str]) -> Path:
    """The words beside an adapter. Raises: UserError where they are missing, or another classifier's."""
    place = folder / words.FOLDER
    if not (place / words.DETAILS).is_file():
        raise UserError(f"{folder} lacks its folder {words.FOLDER}, which answers beside the encoder: copy it whole")
    if record.read(place / words.DETAILS, WordsRecord).labels != label_names:
        raise UserError(f"{place} names other classes than {folder}: they do not belong together")
    return place


def _base_of(adapter: AdapterFiles, known: AdapterRecord, base: str | Path | None) -> Model:
    """The base by the name it goes by: the one given, Rankwise's record, PEFT's configuration."""
    if base is not None:
        return Model(name=str(base))
    trained = known.config.model
    if trained.name is not None:
        return Model(name=trained.name, revision=trained.revision, random_weights=trained.random_weights)
    name = adapter.config.get("base_model_name_or_path")
    if not name:
        raise UserError(
            f"{adapter.folder / CONFIG} names no base_model_name_or_path, so its base is not known: {_HINT}"
        )
    return Model(name=str(name), revision=adapter.config.get("revision"))


def _located(model: Model, *, named: bool) -> tuple[Path | None, Encoder]:
    """The base's folder, none where its weights are random, and its encoder.

    named
        Whether the user has named it already.
    """
    try:
        if model.random_weights:
            sources.ensure_config(model)
            return None, encoder_of(model)
        folder = sources.locate(model)
    except UserError as error:
        raise error if named else UserError(f"{error}; {_HINT}") from error
    return folder, encoder_from(model.name, read_config(folder), folder)


def _pooling(adapter: AdapterFiles, encoder: Encoder) -> str:
    """What the head reads of a text: the projection's own shape says it."""
    shape = adapter.shapes.get(f"{encoder.family.projection}.weight", ())
    if len(shape) != 3:
        return "first"
    return "mean" if shape[1] == encoder.hidden else "both"


def _classes(
    adapter: AdapterFiles, known: AdapterRecord, base: Path | None, count: int
) -> tuple[list[str], bool, tuple[str, ...]]:
    """The label names, whether a text may carry several, and notes."""
    if known.labels is None:
        base_config = read_config(base) if base else {}
        names, note = labels.names_of(count, adapter.folder, base_config)
        own = read_config(adapter.folder) if (adapter.folder / "config.json").is_file() else base_config
        return names, own.get("problem_type") == "multi_label_classification", (note,) if note else ()
    if len(known.labels) != count:
        raise UserError(
            f"{adapter.folder} names {len(known.labels)} classes, its head has {count}: they do not belong together"
        )
    return known.labels, known.config.data.multi_label, ()
