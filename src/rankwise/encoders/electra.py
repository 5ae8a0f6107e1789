"""ELECTRA (Clark et al. 2020): BERT's layers, narrow embeddings in the small model, a head that computes gelu."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from rankwise.encoders.family import Dims, Family, HFConfig, Tensor, linear, shape


def _electra(embedding: int, hidden: int, heads: int, inner: int) -> dict[str, Any]:
    return shape("electra", 30522, hidden, 12, heads, inner, embedding_size=embedding, type_vocab_size=2)


class ELECTRA(Family):
    """The discriminators."""

    model_type = "electra"
    title = "ELECTRA"
    prefix = "electra"
    layer = "electra.encoder.layer.{}"
    prefixable = True
    head_activation = "gelu"
    embedding_projection = "electra.embeddings_project"
    known = {
        "google/electra-small-discriminator": _electra(128, 256, 4, 1024),
        "google/electra-base-discriminator": _electra(768, 768, 12, 3072),
    }

    def dims(self, config: HFConfig) -> Dims:
        return replace(super().dims(config), embedding=self.number(config, "embedding_size", 128))

    def extras(self, dims: Dims, config: HFConfig) -> Iterator[Tensor]:
        if dims.embedding != dims.hidden:
            yield from linear(self.embedding_projection, dims.embedding, dims.hidden)
