"""ALBERT (Lan et al. 2020): small embeddings, and one layer's weights used by all layers of a group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from rankwise.encoders.family import Dims, Family, HFConfig, Tensor, linear, shape


class ALBERT(Family):
    """Its layers count groups, each one layer deep."""

    model_type = "albert"
    title = "ALBERT"
    prefix = "albert"
    layer = "albert.encoder.albert_layer_groups.{}.albert_layers.0"
    sites = {
        "query": "attention.query",
        "key": "attention.key",
        "value": "attention.value",
        "attention_output": "attention.dense",
        "ffn_in": "ffn",
        "ffn_out": "ffn_output",
    }
    attention_norm = "attention.LayerNorm"
    ffn_norm = "full_layer_layer_norm"
    dense = "albert.pooler"
    projection = "classifier"
    head_modules = ("pooler", "classifier")
    defaults = {
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    dense_in_checkpoint = True
    shares_layers = True
    drops_head_input = False
    embedding_projection = "albert.encoder.embedding_hidden_mapping_in"
    known = {
        "albert/albert-base-v2": shape(
            "albert",
            30000,
            768,
            12,
            12,
            3072,
            embedding_size=128,
            type_vocab_size=2,
            num_hidden_groups=1,
            inner_group_num=1,
            hidden_act="gelu_new",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    }

    def unsupported(self, config: HFConfig) -> Iterator[str]:
        if config.get("inner_group_num", 1) != 1:
            yield "inner_group_num"

    def dims(self, config: HFConfig) -> Dims:
        groups, embedding = self.number(config, "num_hidden_groups", 1), self.number(config, "embedding_size", 128)
        return replace(super().dims(config), layers=groups, embedding=embedding)

    def extras(self, dims: Dims, config: HFConfig) -> Iterator[Tensor]:
        yield from linear(self.embedding_projection, dims.embedding, dims.hidden)

    def head_dropout(self, config: HFConfig, hidden_dropout: float) -> float:
        return float(config.get("classifier_dropout_prob", 0.1))
