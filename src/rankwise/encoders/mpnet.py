"""MPNet (Song et al. 2020): no token types, attention biased by distance with one table for all layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rankwise.encoders.family import Dims, Family, HFConfig, Tensor, shape

if TYPE_CHECKING:
    import torch

_BASE = shape(
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


class MPNet(Family):
    """What its code fixes, whatever the configuration says: a padding id of 1, the head's rate, 128 as the farthest."""

    model_type = "mpnet"
    title = "MPNet"
    prefix = "mpnet"
    layer = "mpnet.encoder.layer.{}"
    sites = {
        "query": "attention.attn.q",
        "key": "attention.attn.k",
        "value": "attention.attn.v",
        "attention_output": "attention.attn.o",
        "ffn_in": "intermediate.dense",
        "ffn_out": "output.dense",
    }
    attention_norm = "attention.LayerNorm"
    token_types = 0
    relative_bias = "mpnet.encoder.relative_attention_bias"
    known = {"microsoft/mpnet-base": _BASE, "sentence-transformers/all-mpnet-base-v2": _BASE}

    def position_padding(self, config: HFConfig) -> int | None:
        return 1

    def head_dropout(self, config: HFConfig, hidden_dropout: float) -> float:
        return hidden_dropout

    def extras(self, dims: Dims, config: HFConfig) -> Iterator[Tensor]:
        buckets = int(config.get("relative_attention_num_buckets", 32))
        yield Tensor(f"{self.relative_bias}.weight", (buckets, dims.heads))

    def bias_by_distance(self, table: torch.Tensor, length: int) -> torch.Tensor:
        return table[distance_buckets(length).to(table.device)].permute(2, 0, 1)


def distance_buckets(length: int, buckets: int = 32, farthest: int = 128) -> torch.Tensor:
    """T5's buckets of relative positions (Raffel et al. 2020), as MPNet has them: near ones alone, far ones by log.

    Returns: the bucket of (query, key). Shape: (length, length)
    """
    import torch

    place = torch.arange(length)
    distance = place[:, None] - place[None, :]
    half, exact = buckets // 2, buckets // 4
    apart = distance.abs()
    by_log = torch.log(apart.clamp(min=1).float() / exact) / math.log(farthest / exact) * (half - exact)
    far = (exact + by_log.long()).clamp(max=half - 1)
    return (distance < 0) * half + torch.where(apart < exact, apart, far)
