"""What the fast engine can run, asked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankwise.config import Config
from rankwise.engine.families import FAMILIES
from rankwise.methods import method_of


def why_not(model_type: str, hf_config: Mapping[str, Any], config: Config) -> str | None:
    """Why the fast engine cannot run a configuration; None when it can.

    hf_config
        The encoder's Hugging Face configuration (`config.json`).
    """
    if model_type not in FAMILIES:
        return f"it knows {', '.join(FAMILIES)}, not {model_type}"
    if not method_of(config).fast:
        return f"adapter.method {config.adapter.method} changes more than linear layers, biases and the head"
    if config.model.precision == "fp16":
        return "model.precision fp16 needs loss scaling, which it does not do"
    return architecture_reason(model_type, hf_config)


def architecture_reason(model_type: str, hf_config: Mapping[str, Any]) -> str | None:
    """Why an encoder of a known family is unlike the others of it; None when it is not."""
    activation = FAMILIES[model_type].key(hf_config, "hidden_act", "gelu")
    if activation != "gelu":
        return f"its feed-forward layers compute gelu, this encoder {activation}"
    if hf_config.get("position_embedding_type", "absolute") != "absolute":
        return f"this encoder has {hf_config['position_embedding_type']} positions"
    if hf_config.get("is_decoder"):
        return "this encoder is configured as a decoder"
    return None
