"""Prompt tuning (Lester et al. 2021): trained tokens in front of a text; and what prefix tuning shares with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rankwise.config.tree import Adapter, Config
from rankwise.encoders import Encoder
from rankwise.methods.method import Entry, Method

_TABLE = "prompt_embeddings"


class Prompting(Method):
    """A trained table of `adapter.virtual_tokens` rows outside the model, which PEFT does not wrap."""

    fast = False

    def row(self, encoder: Encoder) -> int:
        """Width of a row of the table."""
        raise NotImplementedError

    def keys(self) -> dict[str, bool]:
        return {**super().keys(), "virtual_tokens": True}

    def entries(self, adapter: Adapter, encoder: Encoder, rank: int) -> Iterator[Entry]:
        yield Entry(_TABLE, (adapter.virtual_tokens, self.row(encoder)), "adapter")

    def virtual_tokens(self, adapter: Adapter) -> int:
        return adapter.virtual_tokens

    def file_key(self, name: str) -> str:
        return name if name == _TABLE else f"base_model.{name}"

    def entry_name(self, key: str) -> str:
        return _TABLE if key.startswith("prompt_encoder.") else key.removeprefix("base_model.")

    def prompt_options(self, config: Config, encoder: Encoder) -> dict[str, Any]:
        """What PEFT's configurations of this kind take."""
        return {
            "num_virtual_tokens": config.adapter.virtual_tokens,
            "num_layers": encoder.depth,
            "num_attention_heads": encoder.dims.heads,
        }


class Prompt(Prompting):
    """Rows of the word embedding."""

    summary = "`adapter.virtual_tokens` in front of a text"

    def row(self, encoder: Encoder) -> int:
        return encoder.dims.embedding

    def peft_config(self, config: Config, encoder: Encoder, common: Mapping[str, Any], total_steps: int | None) -> Any:
        from peft import PromptTuningConfig

        options = self.prompt_options(config, encoder)
        return PromptTuningConfig(token_dim=encoder.dims.embedding, **options, **common)


METHOD = Prompt("prompt")
