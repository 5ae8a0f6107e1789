"""What encoders are called inside: the Hugging Face names of their linear layers, one entry a `model_type`.

Said once for the planner, which counts by them, and for the engine, which computes by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Names:
    """Names of one family's modules. Paths are below the classification model unless said otherwise."""

    prefix: str
    """of the encoder"""
    layer: str
    """path of a layer, `{}` is its index"""
    sites: Mapping[str, str]
    """scope word to the path of its linear layer, below a layer; a fused layer stands under each of its words"""
    attention_norm: str
    """path of the norm after attention (ModernBERT: before it), below a layer"""
    ffn_norm: str
    """the same for the feed-forward layers"""
    dense: str
    """the head's linear layer before the projection (BERT's pooler)"""
    projection: str
    """the head's last linear layer"""
    spelling: Mapping[str, str] = field(default_factory=dict)
    """this family's configuration keys where they differ from BERT's"""

    def key(self, config: Mapping[str, Any], name: str, default: Any = None) -> Any:
        """A value of the Hugging Face configuration by BERT's name for it.

        `to_dict` of a live configuration and `config.json` may hold either spelling.
        """
        for key in (self.spelling.get(name, name), name):
            if config.get(key) is not None:
                return config[key]
        return default


_BERT_SITES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
}


def _bert_like(prefix: str, **changes: Any) -> Names:
    """BERT's layers with RoBERTa's head, and changes."""
    usual = {
        "layer": f"{prefix}.encoder.layer.{{}}",
        "sites": _BERT_SITES,
        "attention_norm": "attention.output.LayerNorm",
        "ffn_norm": "output.LayerNorm",
        "dense": "classifier.dense",
        "projection": "classifier.out_proj",
    }
    return Names(prefix=prefix, **{**usual, **changes})


_ROBERTA = _bert_like("roberta")
NAMES: Mapping[str, Names] = {
    "bert": _bert_like("bert", dense="bert.pooler.dense", projection="classifier"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": _bert_like("electra"),
    "mpnet": _bert_like(
        "mpnet",
        sites={
            "query": "attention.attn.q",
            "key": "attention.attn.k",
            "value": "attention.attn.v",
            "attention_output": "attention.attn.o",
            "ffn_in": "intermediate.dense",
            "ffn_out": "output.dense",
        },
        attention_norm="attention.LayerNorm",
        ffn_norm="output.LayerNorm",
    ),
    "distilbert": Names(
        prefix="distilbert",
        layer="distilbert.transformer.layer.{}",
        sites={
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "attention_output": "attention.out_lin",
            "ffn_in": "ffn.lin1",
            "ffn_out": "ffn.lin2",
        },
        attention_norm="sa_layer_norm",
        ffn_norm="output_layer_norm",
        dense="pre_classifier",
        projection="classifier",
        spelling={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "classifier_dropout": "seq_classif_dropout",
            "hidden_act": "activation",
        },
    ),
    "deberta-v2": _bert_like(
        "deberta",
        sites={
            **_BERT_SITES,
            "query": "attention.self.query_proj",
            "key": "attention.self.key_proj",
            "value": "attention.self.value_proj",
        },
        dense="pooler.dense",
        projection="classifier",
    ),
    "albert": Names(
        prefix="albert",
        # Layers of a group share weights, so the index counts groups, each one layer deep.
        layer="albert.encoder.albert_layer_groups.{}.albert_layers.0",
        sites={
            "query": "attention.query",
            "key": "attention.key",
            "value": "attention.value",
            "attention_output": "attention.dense",
            "ffn_in": "ffn",
            "ffn_out": "ffn_output",
        },
        attention_norm="attention.LayerNorm",
        ffn_norm="full_layer_layer_norm",
        dense="albert.pooler",
        projection="classifier",
    ),
    "modernbert": Names(
        prefix="model",
        layer="model.layers.{}",
        sites={
            "query": "attn.Wqkv",
            "key": "attn.Wqkv",
            "value": "attn.Wqkv",
            "attention_output": "attn.Wo",
            "ffn_in": "mlp.Wi",
            "ffn_out": "mlp.Wo",
        },
        attention_norm="attn_norm",
        ffn_norm="mlp_norm",
        dense="head.dense",
        projection="classifier",
    ),
}
