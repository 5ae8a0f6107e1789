"""DeBERTa v2 and v3 (He et al. 2021): attention by content and by relative position, each in layers of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rankwise.encoders.family import (
    ACTIVATIONS,
    BERT_SITES,
    Dims,
    Family,
    HFConfig,
    Numbers,
    Tensor,
    norm,
    shape,
)

if TYPE_CHECKING:
    import torch


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
    defaults = {"layer_norm_eps": 1e-7}
    relative_words = ("query", "key")
    arrangement = "disentangled"
    relative_table = "deberta.encoder.rel_embeddings"
    relative_norm = "deberta.encoder.LayerNorm"
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
            yield Tensor(f"{self.relative_table}.weight", (2 * self.reach(config), dims.hidden))
            if "layer_norm" in str(config.get("norm_rel_ebd", "none")):
                yield from norm(self.relative_norm, dims.hidden)

    def position_embeddings(self, config: HFConfig) -> str | None:
        return super().position_embeddings(config) if config.get("position_biased_input", True) else None

    def constant_embeddings(self, config: HFConfig) -> tuple[str, ...]:
        return (f"{self.prefix}.embeddings.token_type_embeddings",) if config.get("type_vocab_size") else ()

    def why_not_fast(self, config: HFConfig) -> str | None:
        if not config.get("relative_attention"):
            return "this encoder attends without relative positions"
        if config.get("pooler_hidden_act", "gelu") not in ACTIVATIONS:
            return f"its head computes {', '.join(ACTIVATIONS)}, this encoder's {config['pooler_hidden_act']}"
        return super().why_not_fast(config)

    def numbers(self, config: HFConfig) -> Numbers:
        return replace(
            super().numbers(config),
            head_activation=config.get("pooler_hidden_act", "gelu"),
            head_input_dropout=float(config.get("pooler_dropout", 0.0)),
        )

    def head_dropout(self, config: HFConfig, hidden_dropout: float) -> float:
        rate = config.get("cls_dropout")
        return hidden_dropout if rate is None else float(rate)

    def kinds(self, config: HFConfig) -> frozenset[str]:
        """Which of content to position (c2p) and position to content (p2c) are part of the scores."""
        kinds = config.get("pos_att_type") or ()
        return frozenset(word.strip() for word in (kinds.lower().split("|") if isinstance(kinds, str) else kinds))

    def distance_rows(self, config: HFConfig, longest: int) -> torch.Tensor:
        """The row of the relative embedding of every distance between two of so many tokens.

        Near distances have a row each, far ones share rows by the logarithm (He et al. 2021, section 3.1).

        Returns: of query minus key, from -(longest - 1) to longest - 1. Shape: (2 * longest - 1,)
        """
        import torch

        distance = torch.arange(1 - longest, longest)
        buckets, reach = int(config.get("position_buckets", -1)), self.reach(config)
        if buckets > 0:
            middle, farthest = buckets // 2, int(config.get("max_relative_positions", -1))
            if farthest < 1:
                farthest = self.number(config, "max_position_embeddings", 512)
            apart = torch.where(distance.abs() < middle, torch.tensor(middle - 1), distance.abs())
            far = torch.log(apart / middle) / torch.log(torch.tensor((farthest - 1) / middle)) * (middle - 1)
            by_log = (torch.ceil(far) + middle) * torch.sign(distance)
            distance = torch.where(apart <= middle, distance.float(), by_log).long()
        return (distance + reach).clamp(0, 2 * reach - 1)

    def reach(self, config: HFConfig) -> int:
        """How many distances each way have an embedding."""
        given = (config.get("position_buckets", -1), config.get("max_relative_positions", -1))
        return next(
            (int(value) for value in given if value and value > 0), self.number(config, "max_position_embeddings", 512)
        )
