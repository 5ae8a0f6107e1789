"""What the encoders are called inside: one table of Hugging Face names per family, and the numbers of a config.

The families differ in names, in where positions start, in the head, and in nothing else the engine computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Activation = Literal["tanh", "relu", "gelu"]


@dataclass(frozen=True)
class Family:
    """Names and structure of one `model_type`. Paths are below the classification model."""

    prefix: str
    layer: str
    """path of a layer, `{}` is its index"""
    sites: Mapping[str, str]
    """scope word to the path of its linear layer, below a layer"""
    attention_norm: str
    ffn_norm: str
    dense: str
    """the head's first linear layer (BERT's pooler)"""
    projection: str
    """the head's last linear layer"""
    activation: Activation
    """between the two"""
    dropout_before_dense: bool
    """whether the head drops its input too"""
    positions_follow_pad: bool = False
    """whether the first position is the padding id plus one, as in fairseq's models"""
    attention_output_dropout: bool = True
    relative_bias: str | None = None
    """table of attention biases by distance, shared by all layers"""
    token_types: bool = True
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


def _bert_like(prefix: str, *, activation: Activation = "tanh", positions_follow_pad: bool = False) -> Family:
    """RoBERTa and ELECTRA: BERT's layers with a head of its own on the first token."""
    return Family(
        prefix=prefix,
        layer=f"{prefix}.encoder.layer.{{}}",
        sites=_BERT_SITES,
        attention_norm="attention.output.LayerNorm",
        ffn_norm="output.LayerNorm",
        dense="classifier.dense",
        projection="classifier.out_proj",
        activation=activation,
        dropout_before_dense=True,
        positions_follow_pad=positions_follow_pad,
    )


FAMILIES: Mapping[str, Family] = {
    "bert": Family(
        prefix="bert",
        layer="bert.encoder.layer.{}",
        sites=_BERT_SITES,
        attention_norm="attention.output.LayerNorm",
        ffn_norm="output.LayerNorm",
        dense="bert.pooler.dense",
        projection="classifier",
        activation="tanh",
        dropout_before_dense=False,
    ),
    "roberta": _bert_like("roberta", positions_follow_pad=True),
    "xlm-roberta": _bert_like("roberta", positions_follow_pad=True),
    "electra": _bert_like("electra", activation="gelu"),
    "distilbert": Family(
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
        activation="relu",
        dropout_before_dense=False,
        attention_output_dropout=False,
        token_types=False,
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
    "mpnet": Family(
        prefix="mpnet",
        layer="mpnet.encoder.layer.{}",
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
        dense="classifier.dense",
        projection="classifier.out_proj",
        activation="tanh",
        dropout_before_dense=True,
        positions_follow_pad=True,
        relative_bias="mpnet.encoder.relative_attention_bias",
        token_types=False,
    ),
}


@dataclass(frozen=True)
class Numbers:
    """An encoder's sizes and rates."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    positions: int
    epsilon: float
    hidden_dropout: float
    attention_dropout: float
    head_dropout: float
    pad_id: int | None
    """id that positions are counted around; None where they start at zero"""

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads


def numbers(model_type: str, config: Mapping[str, Any]) -> Numbers:
    """The numbers of a Hugging Face configuration."""
    family = FAMILIES[model_type]
    hidden_dropout = float(family.key(config, "hidden_dropout_prob", 0.1))
    head_dropout = family.key(config, "classifier_dropout")
    if head_dropout is None or model_type == "mpnet":  # MPNet's head knows no rate of its own
        head_dropout = 0.2 if model_type == "distilbert" else hidden_dropout
    pad_id = None
    if family.positions_follow_pad:
        pad_id = 1 if model_type == "mpnet" else int(config.get("pad_token_id", 1))  # MPNet's is fixed in its code
    return Numbers(
        hidden=int(family.key(config, "hidden_size", 768)),
        layers=int(family.key(config, "num_hidden_layers", 12)),
        heads=int(family.key(config, "num_attention_heads", 12)),
        intermediate=int(family.key(config, "intermediate_size", 3072)),
        positions=int(family.key(config, "max_position_embeddings", 512)),
        # DistilBERT's is fixed in its code.
        epsilon=1e-12 if model_type == "distilbert" else float(config.get("layer_norm_eps", 1e-12)),
        hidden_dropout=hidden_dropout,
        attention_dropout=float(family.key(config, "attention_probs_dropout_prob", 0.1)),
        head_dropout=float(head_dropout),
        pad_id=pad_id,
    )
