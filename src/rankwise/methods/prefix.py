"""Prefix tuning (Li and Liang 2021): trained keys and values in front of a text's, in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankwise.config.tree import Adapter, Config
from rankwise.encoders import Encoder
from rankwise.errors import UserError
from rankwise.methods.prompt import Prompting


class Prefix(Prompting):
    """Rows of all layers' keys and values side by side."""

    summary = "their keys and values in every layer, on encoders that take them from outside"

    def row(self, encoder: Encoder) -> int:
        return 2 * encoder.depth * encoder.dims.hidden

    def check_encoder(self, adapter: Adapter, encoder: Encoder) -> None:
        super().check_encoder(adapter, encoder)
        if not encoder.family.prefixable:
            raise UserError(
                f"adapter.method: prefix cannot apply to model.name: {encoder.name}, whose attention takes no "
                "keys and values from outside; adapter.method: prompt can"
            )

    def peft_config(self, config: Config, encoder: Encoder, common: Mapping[str, Any], total_steps: int | None) -> Any:
        from peft import PrefixTuningConfig

        return PrefixTuningConfig(token_dim=encoder.dims.hidden, **self.prompt_options(config, encoder), **common)


METHOD = Prefix("prefix")
