"""BERT (Devlin et al. 2019)."""

from __future__ import annotations

from typing import Any

from rankwise.encoders.family import Family, shape


def _bert(vocabulary: int, hidden: int, layers: int, heads: int) -> dict[str, Any]:
    return shape("bert", vocabulary, hidden, layers, heads, 4 * hidden, type_vocab_size=2)


_MINILM_6, _MINILM_12 = _bert(30522, 384, 6, 12), _bert(30522, 384, 12, 12)


class BERT(Family):
    """The layers that most others have; its pooler is pretrained."""

    model_type = "bert"
    title = "BERT"
    prefix = "bert"
    layer = "bert.encoder.layer.{}"
    dense = "bert.pooler.dense"
    projection = "classifier"
    head_modules = ("pooler", "classifier")
    dense_in_checkpoint = True
    prefixable = True
    drops_head_input = False
    known = {
        "google-bert/bert-base-uncased": _bert(30522, 768, 12, 12),
        "google-bert/bert-base-cased": _bert(28996, 768, 12, 12),
        "google-bert/bert-large-uncased": _bert(30522, 1024, 24, 16),
        "google-bert/bert-large-cased": _bert(28996, 1024, 24, 16),
        "sentence-transformers/all-MiniLM-L6-v2": _MINILM_6,
        "sentence-transformers/all-MiniLM-L12-v2": _MINILM_12,
        "nreimers/MiniLM-L6-H384-uncased": _MINILM_6,
        "microsoft/MiniLM-L12-H384-uncased": _MINILM_12,
    }
