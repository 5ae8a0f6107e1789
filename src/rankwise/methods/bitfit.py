"""BitFit (Ben Zaken et al. 2022): every bias of the encoder trains."""

from __future__ import annotations

from typing import Any

from rankwise.config.tree import Adapter, Config
from rankwise.encoders import Encoder
from rankwise.methods.method import NO_SITES, Method, refuse_without_biases


class BitFit(Method):
    """The model's own biases; nothing is added."""

    summary = "every bias"
    biases = ("none", "all")

    def check_encoder(self, adapter: Adapter, encoder: Encoder) -> None:
        super().check_encoder(adapter, encoder)
        refuse_without_biases(encoder, "adapter.method: bitfit")

    def trains_biases(self, adapter: Adapter) -> bool:
        return True

    def lora_options(self, config: Config, encoder: Encoder) -> dict[str, Any]:
        return {"target_modules": NO_SITES, "bias": "all"}


METHOD = BitFit("bitfit")
