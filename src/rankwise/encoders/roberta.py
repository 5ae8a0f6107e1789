"""RoBERTa (Liu et al. 2019): BERT's layers, positions counted around the padding id, a head of two linear layers."""

from __future__ import annotations

from typing import Any

from rankwise.encoders.family import FairseqPositions, shape


def roberta_shape(model_type: str, hidden: int, layers: int, heads: int, vocabulary: int = 50265) -> dict[str, Any]:
    """An entry of `Family.known` with fairseq's special tokens."""
    more = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    tokens = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return shape(model_type, vocabulary, hidden, layers, heads, 4 * hidden, **more, **tokens)


class RoBERTa(FairseqPositions):
    """XLM-R and CamemBERT are RoBERTas of other words."""

    model_type = "roberta"
    title = "RoBERTa"
    prefix = "roberta"
    layer = "roberta.encoder.layer.{}"
    prefixable = True
    known = {
        "FacebookAI/roberta-base": roberta_shape("roberta", 768, 12, 12),
        "FacebookAI/roberta-large": roberta_shape("roberta", 1024, 24, 16),
        "distilbert/distilroberta-base": roberta_shape("roberta", 768, 6, 12),
    }
