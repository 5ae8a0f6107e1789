"""A classifier that only predicts, read from an adapter's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankwise.config import Config
from rankwise.machine.device import device
from rankwise.machine.precision import precision_of
from rankwise.models.classifier import ReferenceClassifier


def prediction_classifier(folder: Path, config: Config, *, pad_token_id: int) -> Any:
    """A classifier that only predicts, from an adapter's folder.

    The fast engine reads the files itself, where it can: peft alone takes seconds to import.

    config
        The run's configuration; its `engine` and `model.precision` choose the path.
    """
    if config.engine != "reference" and _fast_can_read(folder, config):
        from rankwise.engine import FastClassifier
        from rankwise.models.sources import locate

        precision = precision_of(config.model.precision, "fast")
        return FastClassifier.from_files(locate(config.model), folder, precision=precision).to(device())
    from rankwise.models import adapter_file

    precision = precision_of(config.model.precision, "reference")
    model = adapter_file.load(folder)
    return ReferenceClassifier(model, pad_token_id=pad_token_id, precision=precision).to(device())


def _fast_can_read(folder: Path, config: Config) -> bool:
    from rankwise.encoders import FAMILIES
    from rankwise.engine.support import why_not
    from rankwise.engine.weights import unreadable
    from rankwise.models.sources import ensure_config
    from rankwise.planning import encoder_of

    if config.model.random_weights:
        return False  # there is no file to read: the reference path makes the weights again from their seed
    ensure_config(config.model)
    encoder = encoder_of(config.model)
    reason = why_not(encoder.model_type, encoder.hf_config, config)
    return reason is None and unreadable(folder, FAMILIES[encoder.model_type]) is None
