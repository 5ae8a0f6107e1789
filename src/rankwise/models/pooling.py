"""A projection of pooled tokens in place of a classification model's own head (`head.pooling: mean` or `both`)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import SequenceClassifierOutput

from rankwise.encoders import Encoder

_HEAD_DROPOUT = ("dropout", "drop", "classifier.dropout")
"""what classification models call the dropout before their projection"""


class TokenProjection(nn.Module):
    """Logits of pooled tokens: a kernel over single tokens whose results are averaged, as `nn.Conv1d` of width 1 has it.

    weight
        Shape: (classes, features, 1). A plain linear layer refuses it, so nobody reads the head as one of first tokens.
    """

    def __init__(self, features: int, classes: int, deviation: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features, 1).normal_(0.0, deviation))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, pooled: Tensor) -> Tensor:
        """Shape: pooled (texts, features), result (texts, classes)"""
        return F.linear(pooled, self.weight.squeeze(-1), self.bias)


def pool(hidden: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """What the projection reads of every text.

    hidden
        Shape: (texts, tokens, width)
    mask
        1 on tokens, 0 on padding; of a prefix's keys too, which have no output. Shape: (texts, prefix + tokens)

    Returns. Shape: (texts, width), twice as wide for `both`
    """
    if mask is None:
        mean = hidden.mean(1)
    else:
        weights = mask[:, -hidden.shape[1] :, None].to(hidden.dtype)
        mean = (hidden * weights).sum(1) / weights.sum(1)
    return mean if pooling == "mean" else torch.cat([hidden[:, 0], mean], dim=1)


class _Pooled:
    """`forward` of a classification model whose head is a `TokenProjection`."""

    def forward(
        self: Any,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Any = None,
        **ignored: Any,
    ) -> SequenceClassifierOutput:
        """Logits as the model class gives them. Shape: (texts, classes)"""
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "inputs_embeds": inputs_embeds,
            "past_key_values": past_key_values,
        }
        hidden = self.base_model(**{name: value for name, value in given.items() if value is not None})[0]
        pooled = self.pooled_dropout(pool(hidden.float(), attention_mask, self.pooling))
        return SequenceClassifierOutput(logits=self.classifier(pooled))


def with_pooled_head(model: Any, encoder: Encoder) -> Any:
    """The model with its head replaced as the encoder's pooling says; as it is for `first`.

    The new weights are drawn from torch's current seed, with the model's own deviation.
    """
    if encoder.pooling == "first":
        return model
    family, classes = encoder.family, model.config.num_labels
    modules = dict(model.named_modules())
    rates = [float(modules[name].p) for name in _HEAD_DROPOUT if name in modules]
    projection = TokenProjection(encoder.pooled_width, classes, float(getattr(model.config, "initializer_range", 0.02)))
    leaf = family.projection.partition(".")[2]
    model.classifier = nn.Sequential(OrderedDict([(leaf, projection)])) if leaf else projection
    for name in family.head_modules[:-1]:  # nobody reads it any more
        path = family.dense.split(".")
        holder = model.get_submodule(".".join(path[: path.index(name)]))
        setattr(holder, name, nn.Identity())
    model.pooled_dropout = nn.Dropout(rates[0] if rates else 0.0)
    model.pooling = encoder.pooling
    kind = type(model)
    model.__class__ = type(f"Pooled{kind.__name__}", (_Pooled, kind), {})
    return model
