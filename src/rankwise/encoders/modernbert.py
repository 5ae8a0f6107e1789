"""ModernBERT (Warner et al. 2024): norms before, fused Wqkv, gated feed-forward, rotary positions, hardly a bias."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rankwise.encoders.family import Dims, Family, HFConfig, Tensor, linear, norm, shape, site_shape


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

    def why_not_fast(self, config: HFConfig) -> str | None:
        return "it knows no norms before the layers"
