"""Shapes of well-known encoders, so that planning them needs neither network nor weights.

Each entry holds the keys of the published `config.json` that shapes follow from; the rest is the default of
its `model_type` in `transformers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _shape(
    model_type: str, vocabulary: int, hidden: int, layers: int, heads: int, inner: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "max_position_embeddings": 512,
        **more,
    }


def _roberta(
    hidden: int, layers: int, heads: int, model_type: str = "roberta", vocabulary: int = 50265
) -> dict[str, Any]:
    return _shape(
        model_type,
        vocabulary,
        hidden,
        layers,
        heads,
        4 * hidden,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )


def _bert(vocabulary: int, hidden: int, layers: int, heads: int) -> dict[str, Any]:
    return _shape("bert", vocabulary, hidden, layers, heads, 4 * hidden, type_vocab_size=2)


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


def _deberta(layers: int, hidden: int = 768, heads: int = 12, inner: int = 3072) -> dict[str, Any]:
    return _shape(
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


def _electra(embedding: int, hidden: int, heads: int, inner: int, layers: int = 12) -> dict[str, Any]:
    return _shape("electra", 30522, hidden, layers, heads, inner, embedding_size=embedding, type_vocab_size=2)


def _modernbert(hidden: int, layers: int, heads: int, inner: int) -> dict[str, Any]:
    return _shape("modernbert", 50368, hidden, layers, heads, inner, max_position_embeddings=8192)


_MPNET = _shape(
    "mpnet",
    30527,
    768,
    12,
    12,
    3072,
    max_position_embeddings=514,
    relative_attention_num_buckets=32,
    layer_norm_eps=1e-5,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_id=2,
)
_MINILM_6, _MINILM_12 = _bert(30522, 384, 6, 12), _bert(30522, 384, 12, 12)

KNOWN: dict[str, Mapping[str, Any]] = {
    "FacebookAI/roberta-base": _roberta(768, 12, 12),
    "FacebookAI/roberta-large": _roberta(1024, 24, 16),
    "distilbert/distilroberta-base": _roberta(768, 6, 12),
    "FacebookAI/xlm-roberta-base": _roberta(768, 12, 12, "xlm-roberta", 250002),
    "google-bert/bert-base-uncased": _bert(30522, 768, 12, 12),
    "google-bert/bert-base-cased": _bert(28996, 768, 12, 12),
    "google-bert/bert-large-uncased": _bert(30522, 1024, 24, 16),
    "google-bert/bert-large-cased": _bert(28996, 1024, 24, 16),
    "distilbert/distilbert-base-uncased": _distilbert(30522),
    "distilbert/distilbert-base-cased": _distilbert(28996),
    "microsoft/mpnet-base": _MPNET,
    "sentence-transformers/all-mpnet-base-v2": _MPNET,
    "microsoft/deberta-v3-small": _deberta(6),
    "microsoft/deberta-v3-base": _deberta(12),
    "google/electra-small-discriminator": _electra(128, 256, 4, 1024),
    "google/electra-base-discriminator": _electra(768, 768, 12, 3072),
    "albert/albert-base-v2": _shape(
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
    ),
    "sentence-transformers/all-MiniLM-L6-v2": _MINILM_6,
    "sentence-transformers/all-MiniLM-L12-v2": _MINILM_12,
    "nreimers/MiniLM-L6-H384-uncased": _MINILM_6,
    "microsoft/MiniLM-L12-H384-uncased": _MINILM_12,
    "answerdotai/ModernBERT-base": _modernbert(768, 22, 12, 1152),
    "answerdotai/ModernBERT-large": _modernbert(1024, 28, 16, 2624),
}
PACKAGED = {
    "packaged:all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2",
    "packaged:all-mpnet-base-v2": "sentence-transformers/all-mpnet-base-v2",
}
_SHORT = {name.rpartition("/")[2].lower(): name for name in KNOWN}
_FULL = {name.lower(): name for name in KNOWN}


def full_name(name: str) -> str | None:
    """The organisation/model name of a known encoder, whichever way it was written; None if unknown."""
    if name in PACKAGED:
        return PACKAGED[name]
    return _FULL.get(name.lower()) if "/" in name else _SHORT.get(name.lower())
