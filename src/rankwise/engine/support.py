"""What the fast engine can run, asked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankwise.config import Config
from rankwise.encoders import FAMILIES
from rankwise.methods import method_of


def why_not(model_type: str, hf_config: Mapping[str, Any], config: Config) -> str | None:
    """Why the fast engine cannot run a configuration; None when it can.

    hf_config
        The encoder's Hugging Face configuration (`config.json`).
    """
    if model_type not in FAMILIES:
        return f"it knows no {model_type}"
    if not method_of(config).fast:
        return f"adapter.method {config.adapter.method} changes more than linear layers, biases and the head"
    return FAMILIES[model_type].why_not_fast(hf_config)
