"""Predicting with a run: texts in, label names or probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.config import Config
from rankwise.errors import UserError
from rankwise.runs.calibrate import temperature_of
from rankwise.runs.folder import Run, open_run

EVAL_BATCH = 64


@dataclass
class Predictor:
    """A loaded classifier.

    temperature
        What logits are divided by before the softmax; 1 unless calibration is asked for.
    """

    classifier: Any
    tokenizer: Any
    label_names: list[str]
    max_length: int
    multi_label: bool = False
    temperature: float = 1.0
    preprocess: tuple[str, ...] = ()

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Raw scores, float32. Shape: (texts, classes)

        Raises: UserError when a text is not a string, or all of them are one.
        """
        from rankwise.data.text import preprocess

        if isinstance(texts, str):
            raise UserError("expected a sequence of texts, got one string: wrap it in a list")
        texts = list(texts)
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(f"text {row} is a {type(text).__name__}, expected a string")
        return self.logits_of_cleaned(preprocess(texts, self.preprocess))

    def logits_of_cleaned(self, texts: Sequence[str]) -> np.ndarray:
        """Raw scores of texts that went through `data.preprocess` when they were read. Shape: (texts, classes)"""
        from rankwise.data.tokens import encode
        from rankwise.models.classifier import logits_of

        if not texts:
            return np.zeros((0, len(self.label_names)), dtype=np.float32)
        return logits_of(self.classifier, encode(texts, self.tokenizer, self.max_length), EVAL_BATCH)

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities, float64. Shape: (texts, classes)"""
        from rankwise.scoring.calibration import apply_temperature

        return apply_temperature(self.logits(texts), self.temperature, multi_label=self.multi_label)

    def predict(self, texts: Sequence[str]) -> list[Any]:
        """The name of each text's most probable label; a list of names a text when it may carry several."""
        return self.names_of(self.predict_proba(texts))

    def names_of(self, probabilities: np.ndarray) -> list[Any]:
        """What `predict` says of texts with these probabilities. Shape: (texts, classes)"""
        if self.multi_label:
            return [[self.label_names[label] for label in np.flatnonzero(row >= 0.5)] for row in probabilities]
        return [self.label_names[label] for label in probabilities.argmax(axis=1)]


def text_columns(path: str | Path) -> list[str]:
    """The columns that a run, a search's winner or an adapter was trained on; `text` when nothing says it.

    Raises: UserError when the folder is none of these.
    """
    from rankwise.models.adapter_details import details

    adapter = (Path(path) / "adapter_config.json").is_file()
    column = (details(Path(path)).config if adapter else open_run(path).config).data.text
    return [column] if isinstance(column, str) else list(column)


def load(path: str | Path | Run, *, calibrated: bool = False) -> Predictor:
    """The predictor of a run's folder, a search's (its winner) or any PEFT adapter folder.

    calibrated
        Apply the temperature kept with the adapter (`rankwise calibrate`).

    Raises: UserError when the folder is none of these, its files are damaged, or it was never calibrated.
    """
    predictor, adapter = _load(Path(path))
    if calibrated:
        predictor.temperature = temperature_of(adapter)
    return predictor


def _load(folder: Path) -> tuple[Predictor, Path]:
    """The predictor, and the adapter's folder it came from."""
    if (folder / "adapter_config.json").is_file():
        return _of_adapter(folder), folder
    run = open_run(folder)
    if not (run.adapter / "adapter_config.json").is_file():
        raise UserError(
            f"{run.path} has no adapter yet, its status is '{run.result.get('status')}': "
            f"continue it with  rankwise train {run.path / 'config.yaml'} --out {run.path} --resume"
        )
    return _of_adapter(run.adapter, run.config), run.adapter


def _of_adapter(folder: Path, config: Config | None = None) -> Predictor:
    """The predictor of an adapter's folder; without a run around it, the folder's own record is followed."""
    from rankwise.models import tokenizer_of
    from rankwise.models.adapter_details import details
    from rankwise.models.prediction import prediction_classifier
    from rankwise.planning import encoder_of

    told = details(folder)
    config = config or told.config
    tokenizer = tokenizer_of(folder if (folder / "tokenizer.json").is_file() else config.model)
    return Predictor(
        prediction_classifier(folder, config, pad_token_id=tokenizer.pad_token_id),
        tokenizer,
        told.label_names,
        config.data.max_length or told.max_length or encoder_of(config.model).positions,
        multi_label=config.data.multi_label,
        preprocess=tuple(config.data.preprocess),
    )
