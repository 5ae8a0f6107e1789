"""What sets the engine's encoders apart beyond their names, and the numbers of a configuration.

The families differ in names, in where positions start, in the head, and in nothing else the engine computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rankwise.encoders.names import NAMES, Names

Activation = Literal["tanh", "relu", "gelu"]


@dataclass(frozen=True, kw_only=True)
class Family(Names):
    """Names and structure of one `model_type`."""

    activation: Activation
    """between the head's two linear layers"""
    dropout_before_dense: bool
    """whether the head drops its input too"""
    positions_follow_pad: bool = False
    """whether the first position is the padding id plus one, as in fairseq's models"""
    attention_output_dropout: bool = True
    relative_bias: str | None = None
    """table of attention biases by distance, shared by all layers"""
    token_types: bool = True


def _family(model_type: str, **own: Any) -> Family:
    return Family(**vars(NAMES[model_type]), **own)


FAMILIES: Mapping[str, Family] = {
    "bert": _family("bert", activation="tanh", dropout_before_dense=False),
    "roberta": _family("roberta", activation="tanh", dropout_before_dense=True, positions_follow_pad=True),
    "xlm-roberta": _family("xlm-roberta", activation="tanh", dropout_before_dense=True, positions_follow_pad=True),
    "electra": _family("electra", activation="gelu", dropout_before_dense=True),
    "distilbert": _family(
        "distilbert",
        activation="relu",
        dropout_before_dense=False,
        attention_output_dropout=False,
        token_types=False,
    ),
    "mpnet": _family(
        "mpnet",
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
