"""What each family of encoders is made of: every tensor by its name and shape, from numbers alone.

A family's tensors are written as one list, and everything the planner counts is read off it: sites, biases,
head, frozen rest. The names are those of `transformers`' sequence classification models; a test compares the
lists with the live models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rankwise.encoders.names import NAMES, Names

HFConfig = Mapping[str, Any]


@dataclass(frozen=True)
class Tensor:
    """A parameter of the model: its name below the model, and its shape."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count


@dataclass(frozen=True)
class Dims:
    """The numbers of an encoder that its tensors follow from."""

    vocabulary: int
    embedding: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    positions: int
    token_types: int


@dataclass(frozen=True, kw_only=True)
class Family(Names):
    """Names and shapes shared by the encoders of one `model_type`."""

    head_modules: tuple[str, ...]
    """modules the classification model adds to the encoder, dense module first, the projection's last"""
    dense_in_checkpoint: bool = False
    """whether published checkpoints hold the dense module, so that it is pretrained and stays frozen"""
    prefixable: bool = False
    """whether `transformers` lets it take keys and values from outside, as prefix tuning needs"""
    shares_layers: bool = False
    """whether layers share their weights, so that one adapter serves several"""
    relative_words: tuple[str, ...] = ()
    """scope words of layers that project relative positions beside the text"""
    tensors: Callable[[Family, Dims, HFConfig, int], Iterator[Tensor]]


def _linear(name: str, d_in: int, d_out: int, bias: bool = True) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (d_out, d_in))
    if bias:
        yield Tensor(f"{name}.bias", (d_out,))


def _norm(name: str, width: int, bias: bool = True) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (width,))
    if bias:
        yield Tensor(f"{name}.bias", (width,))


def site_shape(word: str, dims: Dims, gated: bool = False, fused: bool = False) -> tuple[int, int]:
    """Width in and out of the layer a scope word names."""
    if word == "ffn_in":
        return dims.hidden, dims.intermediate * (2 if gated else 1)
    if word == "ffn_out":
        return dims.intermediate, dims.hidden
    if word == "attention_output":
        return dims.hidden, dims.hidden
    return dims.hidden, dims.hidden * (3 if fused else 1)


def _layer(family: Family, layer: str, dims: Dims) -> Iterator[Tensor]:
    for word, path in family.sites.items():
        yield from _linear(f"{layer}.{path}", *site_shape(word, dims))
    for norm in (family.attention_norm, family.ffn_norm):
        yield from _norm(f"{layer}.{norm}", dims.hidden)


def _embeddings(family: Family, dims: Dims, config: HFConfig) -> Iterator[Tensor]:
    base = f"{family.prefix}.embeddings"
    yield Tensor(f"{base}.word_embeddings.weight", (dims.vocabulary, dims.embedding))
    if config.get("position_biased_input", True):
        yield Tensor(f"{base}.position_embeddings.weight", (dims.positions, dims.embedding))
    if dims.token_types:
        yield Tensor(f"{base}.token_type_embeddings.weight", (dims.token_types, dims.embedding))
    yield from _norm(f"{base}.LayerNorm", dims.embedding)


def _dense_head(family: Family, dims: Dims, num_labels: int) -> Iterator[Tensor]:
    yield from _linear(family.dense, dims.hidden, dims.hidden)
    yield from _linear(family.projection, dims.hidden, num_labels)


def _bert_like(family: Family, dims: Dims, config: HFConfig, num_labels: int) -> Iterator[Tensor]:
    """Encoders that differ from BERT in names only."""
    yield from _embeddings(family, dims, config)
    for index in range(dims.layers):
        yield from _layer(family, family.layer.format(index), dims)
    yield from _extras(family, dims, config)
    yield from _dense_head(family, dims, num_labels)


def _extras(family: Family, dims: Dims, config: HFConfig) -> Iterator[Tensor]:
    """What single families add outside their layers: projected embeddings, relative positions."""
    encoder = f"{family.prefix}.encoder"
    if family.prefix == "electra" and dims.embedding != dims.hidden:
        yield from _linear("electra.embeddings_project", dims.embedding, dims.hidden)
    if family.prefix == "mpnet":
        buckets = int(config.get("relative_attention_num_buckets", 32))
        yield Tensor(f"{encoder}.relative_attention_bias.weight", (buckets, dims.heads))
    if family.prefix == "deberta" and config.get("relative_attention"):
        reach = int(config.get("position_buckets", -1))
        if reach <= 0:
            reach = int(config.get("max_relative_positions", -1))
        if reach <= 0:
            reach = dims.positions
        yield Tensor(f"{encoder}.rel_embeddings.weight", (2 * reach, dims.hidden))
        if "layer_norm" in str(config.get("norm_rel_ebd", "none")):
            yield from _norm(f"{encoder}.LayerNorm", dims.hidden)


def _albert(family: Family, dims: Dims, config: HFConfig, num_labels: int) -> Iterator[Tensor]:
    """ALBERT (Lan et al. 2020): small embeddings, and one layer's weights used by all layers of a group."""
    yield from _embeddings(family, dims, config)
    yield from _linear("albert.encoder.embedding_hidden_mapping_in", dims.embedding, dims.hidden)
    for index in range(dims.layers):
        yield from _layer(family, family.layer.format(index), dims)
    yield from _dense_head(family, dims, num_labels)


def _modernbert(family: Family, dims: Dims, config: HFConfig, num_labels: int) -> Iterator[Tensor]:
    """ModernBERT (Warner et al. 2024): fused Wqkv, gated feed-forward, rotary positions, hardly a bias."""
    norm_bias = bool(config.get("norm_bias", False))
    attention_bias, mlp_bias = bool(config.get("attention_bias", False)), bool(config.get("mlp_bias", False))
    yield Tensor("model.embeddings.tok_embeddings.weight", (dims.vocabulary, dims.hidden))
    yield from _norm("model.embeddings.norm", dims.hidden, norm_bias)
    for index in range(dims.layers):
        layer = family.layer.format(index)
        if index:  # the first layer's attention norm is the identity: the embedding norm comes just before it
            yield from _norm(f"{layer}.attn_norm", dims.hidden, norm_bias)
        yield from _linear(f"{layer}.attn.Wqkv", *site_shape("query", dims, fused=True), attention_bias)
        yield from _linear(f"{layer}.attn.Wo", dims.hidden, dims.hidden, attention_bias)
        yield from _norm(f"{layer}.mlp_norm", dims.hidden, norm_bias)
        yield from _linear(f"{layer}.mlp.Wi", *site_shape("ffn_in", dims, gated=True), mlp_bias)
        yield from _linear(f"{layer}.mlp.Wo", *site_shape("ffn_out", dims), mlp_bias)
    yield from _norm("model.final_norm", dims.hidden, norm_bias)
    yield from _linear("head.dense", dims.hidden, dims.hidden, bool(config.get("classifier_bias", False)))
    yield from _norm("head.norm", dims.hidden, norm_bias)
    yield from _linear("classifier", dims.hidden, num_labels)


def _family(model_type: str, **own: Any) -> Family:
    return Family(**vars(NAMES[model_type]), **{"tensors": _bert_like, **own})


_HEAD, _POOLER = ("classifier",), ("pooler", "classifier")
FAMILIES: dict[str, Family] = {
    "bert": _family("bert", head_modules=_POOLER, dense_in_checkpoint=True, prefixable=True),
    "roberta": _family("roberta", head_modules=_HEAD, prefixable=True),
    "xlm-roberta": _family("xlm-roberta", head_modules=_HEAD, prefixable=True),
    "camembert": _family("camembert", head_modules=_HEAD, prefixable=True),
    "electra": _family("electra", head_modules=_HEAD, prefixable=True),
    "mpnet": _family("mpnet", head_modules=_HEAD),
    "distilbert": _family("distilbert", head_modules=("pre_classifier", "classifier")),
    "deberta-v2": _family("deberta-v2", head_modules=_POOLER, relative_words=("query", "key")),
    "albert": _family("albert", head_modules=_POOLER, dense_in_checkpoint=True, shares_layers=True, tensors=_albert),
    "modernbert": _family(
        "modernbert", head_modules=("head", "classifier"), dense_in_checkpoint=True, tensors=_modernbert
    ),
}
