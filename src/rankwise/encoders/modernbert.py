"""ModernBERT (Warner et al. 2024): norms before, fused Wqkv, gated feed-forward, rotary positions, hardly a bias."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rankwise.encoders.family import (
    ACTIVATIONS,
    Dims,
    Family,
    HFConfig,
    Numbers,
    Rotary,
    Tensor,
    linear,
    norm,
    shape,
    site_shape,
)

if TYPE_CHECKING:
    import torch


def _modernbert(hidden: int, layers: int, heads: int, inner: int) -> dict[str, Any]:
    return shape("modernbert", 50368, hidden, layers, heads, inner, max_position_embeddings=8192)


class ModernBERT(Family):
    """Ettin and mmBERT are of this type."""

    model_type = "modernbert"
    title = "ModernBERT"
    prefix = "model"
    layer = "model.layers.{}"
    sites = {
        "query": "attn.Wqkv",
        "key": "attn.Wqkv",
        "value": "attn.Wqkv",
        "attention_output": "attn.Wo",
        "ffn_in": "mlp.Wi",
        "ffn_out": "mlp.Wo",
    }
    attention_norm = "attn_norm"
    ffn_norm = "mlp_norm"
    dense = "head.dense"
    projection = "classifier"
    head_modules = ("head", "classifier")
    dense_in_checkpoint = True
    token_types = 0
    spelling = {"hidden_act": "hidden_activation"}
    arrangement = "pre_norm"
    words = "embeddings.tok_embeddings"
    embedding_norm = "embeddings.norm"
    final_norm = "model.final_norm"
    head_norm = "head.norm"
    drops_head_input = False
    known = {
        "answerdotai/ModernBERT-base": _modernbert(768, 22, 12, 1152),
        "answerdotai/ModernBERT-large": _modernbert(1024, 28, 16, 2624),
    }

    def tensors(self, dims: Dims, config: HFConfig, num_labels: int) -> Iterator[Tensor]:
        norm_bias = bool(config.get("norm_bias", False))
        attention_bias, mlp_bias = bool(config.get("attention_bias", False)), bool(config.get("mlp_bias", False))
        yield Tensor("model.embeddings.tok_embeddings.weight", (dims.vocabulary, dims.hidden))
        yield from norm("model.embeddings.norm", dims.hidden, norm_bias)
        for index in range(dims.layers):
            layer = self.layer.format(index)
            if index:  # the first layer's attention norm is the identity: the embedding norm comes just before it
                yield from norm(f"{layer}.attn_norm", dims.hidden, norm_bias)
            yield from linear(f"{layer}.attn.Wqkv", *site_shape("query", dims, fused=True), attention_bias)
            yield from linear(f"{layer}.attn.Wo", dims.hidden, dims.hidden, attention_bias)
            yield from norm(f"{layer}.mlp_norm", dims.hidden, norm_bias)
            yield from linear(f"{layer}.mlp.Wi", *site_shape("ffn_in", dims, gated=True), mlp_bias)
            yield from linear(f"{layer}.mlp.Wo", *site_shape("ffn_out", dims), mlp_bias)
        yield from norm("model.final_norm", dims.hidden, norm_bias)
        yield from linear("head.dense", dims.hidden, dims.hidden, bool(config.get("classifier_bias", False)))
        yield from norm("head.norm", dims.hidden, norm_bias)
        yield from linear("classifier", dims.hidden, num_labels)

    @property
    def own_names(self) -> str:
        return "model.embeddings."  # a decoder's modules begin with `model` too

    def position_embeddings(self, config: HFConfig) -> str | None:
        return None

    def draw_head(self, new: Mapping[str, torch.Tensor], config: HFConfig) -> None:
        """Each linear layer is drawn twice, as every linear layer and then as this model's own, cut off at both ends."""
        from torch.nn.init import trunc_normal_

        own = {
            f"{self.dense}.weight": self.head_deviation(config) / math.sqrt(2 * self.key(config, "num_hidden_layers")),
            f"{self.projection}.weight": self.key(config, "hidden_size") ** -0.5,
        }
        cut = config.get("initializer_cutoff_factor", 2.0)
        for module in self.head_modules:
            inside = {name: value for name, value in new.items() if module in name.split(".")}
            super().draw_head(inside, config)
            for name in own.keys() & inside.keys():
                spread = own[name]
                trunc_normal_(inside[name], std=spread, a=-cut * spread, b=cut * spread)

    def why_not_fast(self, config: HFConfig) -> str | None:
        activation = config.get("classifier_activation", "gelu")
        if activation not in ACTIVATIONS:
            return f"its head computes {', '.join(ACTIVATIONS)}, this encoder's {activation}"
        kinds = {
            values.get("rope_type", "default") for values in (config.get("rope_parameters") or {}).values() if values
        }
        if kinds - {"default"} or config.get("rope_scaling"):
            return "its rotary positions are not scaled, this encoder's are"
        return super().why_not_fast(config)

    def numbers(self, config: HFConfig) -> Numbers:
        attention_dropout = float(config.get("attention_dropout", 0.0))
        return replace(
            super().numbers(config),
            epsilon=float(config.get("norm_eps", 1e-5)),
            embedding_dropout=float(config.get("embedding_dropout", 0.0)),
            hidden_dropout=float(config.get("mlp_dropout", 0.0)),
            attention_dropout=attention_dropout,
            attention_output_dropout=attention_dropout,
            head_activation=config.get("classifier_activation", "gelu"),
        )

    def head_dropout(self, config: HFConfig, hidden_dropout: float) -> float:
        return float(config.get("classifier_dropout", 0.0))

    def pools_mean(self, config: HFConfig) -> bool:
        return bool(config.get("classifier_pooling", "cls") == "mean")

    def rotary(self, config: HFConfig, index: int) -> Rotary:
        """Every third layer looks at the whole text, the others at a window; each kind turns at a rate of its own.

        Configurations of today name layers and rates one by one, those on the Hub by a stride and two numbers.
        """
        kinds, every = config.get("layer_types"), int(config.get("global_attn_every_n_layers", 3))
        whole = kinds[index] == "full_attention" if kinds else index % every == 0
        rates = (config.get("rope_parameters") or {}).get("full_attention" if whole else "sliding_attention") or {}
        usual = config.get("global_rope_theta") or 160_000.0 if whole else config.get("local_rope_theta") or 10_000.0
        return Rotary(
            float(rates.get("rope_theta") or usual), None if whole else int(config.get("local_attention", 128)) // 2
        )
