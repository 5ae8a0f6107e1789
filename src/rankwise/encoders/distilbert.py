"""DistilBERT (Sanh et al. 2019): half of BERT's layers, no token types, keys of its own in the configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rankwise.encoders.family import Family, HFConfig, Numbers


def _distilbert(vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "distilbert",
        "vocab_size": vocabulary,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "max_position_embeddings": 512,
    }


class DistilBERT(Family):
    """Its norms' epsilon is fixed in its code, and it drops nothing after attention."""

    model_type = "distilbert"
    title = "DistilBERT"
    prefix = "distilbert"
    layer = "distilbert.transformer.layer.{}"
    sites = {
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_output": "attention.out_lin",
        "ffn_in": "ffn.lin1",
        "ffn_out": "ffn.lin2",
    }
    attention_norm = "sa_layer_norm"
    ffn_norm = "output_layer_norm"
    dense = "pre_classifier"
    projection = "classifier"
    head_modules = ("pre_classifier", "classifier")
    spelling = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "classifier_dropout": "seq_classif_dropout",
        "hidden_act": "activation",
    }
    token_types = 0
    head_activation = "relu"
    drops_head_input = False
    known = {
        "distilbert/distilbert-base-uncased": _distilbert(30522),
        "distilbert/distilbert-base-cased": _distilbert(28996),
    }

    def head_dropout(self, config: HFConfig, hidden_dropout: float) -> float:
        return float(self.key(config, "classifier_dropout", 0.2))

    def numbers(self, config: HFConfig) -> Numbers:
        return replace(super().numbers(config), epsilon=1e-12, attention_output_dropout=0.0)
