"""DeBERTa v2 and v3 (He et al. 2021): attention by content and by relative position, each in layers of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rankwise.encoders.family import BERT_SITES, Dims, Family, HFConfig, Tensor, norm, shape


def _deberta(layers: int, hidden: int = 768, heads: int = 12, inner: int = 3072) -> dict[str, Any]:
    return shape(
        "deberta-v2",
        128100,
        hidden,
        layers,
        heads,
        inner,
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=256,
        max_relative_positions=-1,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        layer_norm_eps=1e-7,
    )


class DeBERTa(Family):
    """Version 3 is of version 2's type."""

    model_type = "deberta-v2"
    title = "DeBERTa v2 and v3"
    prefix = "deberta"
    layer = "deberta.encoder.layer.{}"
    sites = {
        **BERT_SITES,
        "query": "attention.self.query_proj",
        "key": "attention.self.key_proj",
        "value": "attention.self.value_proj",
    }
    dense = "pooler.dense"
    projection = "classifier"
    head_modules = ("pooler", "classifier")
    relative_words = ("query", "key")
    known = {"microsoft/deberta-v3-small": _deberta(6), "microsoft/deberta-v3-base": _deberta(12)}

    def unsupported(self, config: HFConfig) -> Iterator[str]:
        hidden = config.get("hidden_size")
        odd = {
            "conv_kernel_size": bool(config.get("conv_kernel_size", 0)),
            "embedding_size": config.get("embedding_size", hidden) != hidden,
            "pooler_hidden_size": config.get("pooler_hidden_size", hidden) != hidden,
            "attention_head_size": "attention_head_size" in config,
            "share_att_key": bool(config.get("relative_attention")) and not config.get("share_att_key", False),
        }
        yield from (key for key, found in odd.items() if found)

    def dims(self, config: HFConfig) -> Dims:
        return replace(super().dims(config), token_types=self.number(config, "type_vocab_size", 0))

    def embeddings(self, dims: Dims, config: HFConfig) -> Iterator[Tensor]:
        for tensor in super().embeddings(dims, config):
            if config.get("position_biased_input", True) or ".position_embeddings." not in tensor.name:
                yield tensor

    def extras(self, dims: Dims, config: HFConfig) -> Iterator[Tensor]:
        if config.get("relative_attention"):
            yield Tensor(f"{self.prefix}.encoder.rel_embeddings.weight", (2 * self.reach(config), dims.hidden))
            if "layer_norm" in str(config.get("norm_rel_ebd", "none")):
                yield from norm(f"{self.prefix}.encoder.LayerNorm", dims.hidden)

    def why_not_fast(self, config: HFConfig) -> str | None:
        return "it knows no attention by relative position"

    def reach(self, config: HFConfig) -> int:
        """How many distances each way have an embedding."""
        given = (config.get("position_buckets", -1), config.get("max_relative_positions", -1))
        return next(
            (int(value) for value in given if value and value > 0), self.number(config, "max_position_embeddings", 512)
        )
