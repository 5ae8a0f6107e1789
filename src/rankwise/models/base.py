"""The frozen base: a classification model of `transformers`, from weights or from its shape alone."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification

from rankwise.config import Model
from rankwise.encoders import Encoder
from rankwise.errors import UserError, reason_of
from rankwise.models import sources
from rankwise.models.pooling import with_pooled_head

_turn = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' loading reports, bars and notices to PEFT's developers off the screen.

    What they warn of is checked here. The settings are the process's: threads that load at once take turns, so that each
    finds the host's and leaves them.
    """
    with _turn:
        logger = logging.getLogger("transformers")
        level, bars = logger.level, transformers.logging.is_progress_bar_enabled()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                yield
        finally:
            logger.setLevel(level)
            if bars:
                transformers.logging.enable_progress_bar()


def base_model(
    model: Model, encoder: Encoder, label_names: Sequence[str], multi_label: bool, *, folder: Path | None = None
) -> Any:
    """The classification model in fp32, its head newly made from torch's current seed.

    folder
        Where its weights are, if that is known; else they are looked for by the model's name.

    Raises: UserError: the files are not usable, or the weights are not those of the config.json.
    """
    labels = {
        "num_labels": len(label_names),
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
        "problem_type": "multi_label_classification" if multi_label else "single_label_classification",
    }
    with quiet():
        if model.random_weights:
            shaped = AutoModelForSequenceClassification.from_config(_shape_config(encoder, labels))
            return with_pooled_head(shaped, encoder).float()
        folder = folder or sources.locate(model)
        try:
            base, report = AutoModelForSequenceClassification.from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # a head fine-tuned for other classes is replaced by a new one
                output_loading_info=True,
                **labels,
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise UserError(f"model.name: transformers cannot load {folder}: {reason_of(error)}") from error
    _check_report(report, encoder, folder)
    base.name_or_path = sources.name_of(model, folder)
    return with_pooled_head(base, encoder).float()


def _shape_config(encoder: Encoder, labels: Mapping[str, Any]) -> Any:
    """The transformers configuration of an encoder whose weights are not wanted."""
    shape = {k: v for k, v in encoder.hf_config.items() if k not in ("model_type", "architectures", "auto_map")}
    return AutoConfig.for_model(encoder.model_type, **{**shape, **labels})


def _check_report(report: Mapping[str, Any], encoder: Encoder, folder: Path) -> None:
    """Refuse weights that leave any of the encoder random: only the head may be new."""
    head = set(encoder.family.head_modules)
    mismatched = [entry[0] if isinstance(entry, (tuple, list)) else entry for entry in report["mismatched_keys"]]
    for key in sorted([*report["missing_keys"], *mismatched]):
        if not head & set(key.split(".")[:-1]):
            raise UserError(
                f"model.name: the weights in {folder} lack '{key}' in the shape its config.json gives: "
                "the folder's files do not belong together"
            )
