"""Predicting with a saved classifier: texts in, label names or probabilities out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.baselines.words import WordClassifier
from rankwise.errors import UserError
from rankwise.inference import saved as saving
from rankwise.inference.answers import Answers, checked
from rankwise.inference.saved import Saved, SavedClassifier
from rankwise.machine.settings import own_settings
from rankwise.records.result import Decision
from rankwise.runs.folder import Run

EVAL_BATCH = 64


@dataclass
class Predictor(Answers):
    """A loaded classifier. Threads may share it; a process forked from the one that loaded it answers with one thread,
    since pools of threads do not survive a fork; its pickle is the path it was loaded from.

    threads
        What it computes with; None: as many as torch does in this process.
    notes
        What a reader of its answers should know.
    words
        Whose logits are added to the network's, or are all where there is no network.
    """

    classifier: Any
    tokenizer: Any
    label_names: list[str]
    max_length: int
    truncation: str = "head"
    multi_label: bool = False
    pair: bool = False
    temperature: float = 1.0
    preprocess: tuple[str, ...] = ()
    threads: int | None = None
    notes: tuple[str, ...] = ()
    decision: Decision | None = None
    words: WordClassifier | None = None
    again: Callable[[], Predictor] | None = None
    """loads it anew"""
    _process: int = field(default_factory=os.getpid, repr=False)

    @property
    def computes_with(self) -> str:
        """The kernels and the precision of its answers."""
        if self.classifier is None:
            return "scikit-learn"
        kind = getattr(self.classifier, "computes_with", "reference")
        precision = getattr(self.classifier, "precision", None) or getattr(self.classifier, "autocast_dtype", None)
        return f"{kind} {precision or 'torch.float32'}"

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Raw scores, float32. Shape: (texts, classes)

        Raises: UserError when a text is not a string, or all of them are one.
        """
        from rankwise.data.cleaning import preprocess

        return self.logits_of_cleaned(preprocess(checked(texts, {"this classifier": self.pair}), self.preprocess))

    def logits_of_cleaned(self, texts: Sequence[str]) -> np.ndarray:
        """Raw scores of texts that went through `data.preprocess` when they were read. Shape: (texts, classes)"""
        from rankwise.machine.threads import limited_to, of_process
        from rankwise.models.classifier import logits_of

        if not texts:
            return np.zeros((0, len(self.label_names)), dtype=np.float32)
        if self.classifier is None:
            assert self.words is not None
            return self.words.logits(texts)
        with own_settings(), limited_to(of_process(self.threads, self._process)):
            found = logits_of(self.classifier, self.tokens_of(texts), EVAL_BATCH)
        return found if self.words is None else found + self.words.logits(texts)

    def tokens_of(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of cleaned texts as the network reads them. Shape of each: (tokens,)"""
        from rankwise.data.tokens import encode

        return encode(texts, self.tokenizer, self.max_length, self.truncation)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities, float64. Shape: (texts, classes)"""
        return self.probabilities(self.logits(texts))

    def predict(self, texts: Sequence[str]) -> list[Any]:
        """The name of each text's label, the most probable one unless a decision was fitted for a goal; a list of names a
        text when it may carry several.
        """
        return self.names_of(self.predict_proba(texts))

    def __reduce__(self) -> tuple[Any, ...]:
        if self.again is None:
            raise UserError("this predictor was not loaded from a folder, so it has no pickle: use rankwise.load")
        return self.again, ()


@own_settings()
def load(
    path: str | Path | Run,
    *,
    base: str | Path | None = None,
    precision: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    calibrated: bool = False,
) -> Predictor:
    """The predictor of a run's folder, a search's (its winner) or any PEFT adapter folder.

    base
        The base's folder or name, where the one that the adapter names is not to be had here.
    precision
        fp32, bf16, fp16 or auto, which is what this machine is fast in; by default that of the training, or auto where
        it needs a GPU and there is none.
    engine
        fast, reference or auto; by default that of the training.
    threads
        What it computes with, whatever the process does otherwise.
    calibrated
        Apply the temperature kept with the adapter (`rankwise calibrate`).

    Raises: UserError when the folder is none of these, its files are damaged or do not belong together, or it was never
    calibrated.
    """
    options: Any = {"precision": precision, "engine": engine, "threads": threads, "calibrated": calibrated}
    anew = partial(load, str(Path(path).resolve()), base=base, **options)
    return predictor_of(saving.read_any(path, base=base), **options, again=anew)


def predictor_of(
    saved: Saved,
    *,
    precision: str | None = None,
    engine: str | None = None,
    threads: int | None = None,
    calibrated: bool = False,
    again: Callable[[], Predictor] | None = None,
) -> Predictor:
    """`load` of what has been read already."""
    temperature, classifier, tokenizer = saved.divisor(calibrated), None, None
    if isinstance(saved, SavedClassifier):
        from rankwise.inference.classifier import load_classifier
        from rankwise.machine.threads import check

        check(threads)
        classifier, tokenizer = load_classifier(saved, engine=engine, precision=precision), saved.tokenizer
    return Predictor(
        classifier,
        tokenizer,
        saved.label_names,
        saved.max_length or 0,
        saved.truncation,
        multi_label=saved.multi_label,
        pair=saved.pair,
        temperature=temperature,
        preprocess=saved.preprocess,
        threads=threads,
        notes=saved.notes,
        decision=saved.decision,
        words=None if saved.words is None else WordClassifier.load(saved.words),
        again=again,
    )
