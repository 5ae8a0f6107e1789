"""What a family is: everything the rest asks of the encoders of one `model_type`, with the answers of BERT's layers.

Names are those of `transformers`' sequence classification models. A family's tensors are written as one list, and
everything the planner counts is read off it: sites, biases, head, frozen rest; a test compares the lists with the live
models. What the fast engine computes is said here too: numbers, and functions that import torch when they are called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rankwise.errors import UserError

if TYPE_CHECKING:
    import torch

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
    """with weights of their own"""
    heads: int
    intermediate: int
    positions: int
    token_types: int


@dataclass(frozen=True)
class Numbers:
    """What the engine computes with: an encoder's sizes, rates and functions."""

    hidden: int
    layers: int
    """that a text goes through"""
    heads: int
    intermediate: int
    positions: int
    epsilon: float
    activation: str
    """of the feed-forward layers, in `transformers`' words"""
    embedding_dropout: float
    hidden_dropout: float
    attention_dropout: float
    attention_output_dropout: float
    head_dropout: float
    """between the head's two linear layers"""
    head_input_dropout: float
    head_activation: str
    pad_id: int | None
    """id that positions are counted around; None where they start at zero"""

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads


@dataclass(frozen=True)
class Rotary:
    """Positions of one layer as rotations of queries and keys (Su et al. 2021), and how far it looks."""

    theta: float
    window: int | None
    """tokens each way; None: all"""


Arrangement = Literal["post_norm", "disentangled", "pre_norm"]
"""post_norm: BERT's layer; disentangled: the same with attention by relative position too; pre_norm: norms come first,
positions are rotations and the feed-forward layers are gated"""
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh")
"""functions that the engine computes, in `transformers`' words"""

BERT_SITES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
}


class Family:
    """Encoders of one `model_type`. A family's file overrides what sets it apart; nothing else asks for its type."""

    model_type: ClassVar[str]
    title: ClassVar[str]
    """as the documentation calls it"""

    # --- names; paths are below the classification model unless said otherwise ------------------------

    prefix: ClassVar[str]
    """of the encoder"""
    layer: ClassVar[str]
    """path of a layer, `{}` is its index"""
    sites: ClassVar[Mapping[str, str]] = BERT_SITES
    """scope word to the path of its linear layer, below a layer; a fused layer stands under each of its words"""
    attention_norm: ClassVar[str] = "attention.output.LayerNorm"
    """path of the norm after attention (ModernBERT: before it), below a layer"""
    ffn_norm: ClassVar[str] = "output.LayerNorm"
    """the same for the feed-forward layers"""
    dense: ClassVar[str] = "classifier.dense"
    """the head's linear layer before the projection (BERT's pooler)"""
    projection: ClassVar[str] = "classifier.out_proj"
    """the head's last linear layer"""
    head_modules: ClassVar[tuple[str, ...]] = ("classifier",)
    """modules the classification model adds to the encoder, dense module first, the projection's last"""
    spelling: ClassVar[Mapping[str, str]] = {}
    """this family's configuration keys where they differ from BERT's"""

    defaults: ClassVar[Mapping[str, Any]] = {}
    """what `transformers` takes where a configuration leaves a key out, by BERT's names, where it differs from BERT's"""

    # --- what holds for all of its encoders -----------------------------------------------------------

    dense_in_checkpoint: ClassVar[bool] = False
    """whether published checkpoints hold the dense module, so that it is pretrained and stays frozen"""
    prefixable: ClassVar[bool] = False
    """whether `transformers` lets it take keys and values from outside, as prefix tuning needs"""
    shares_layers: ClassVar[bool] = False
    """whether layers share their weights, so that one adapter serves several"""
    relative_words: ClassVar[tuple[str, ...]] = ()
    """scope words of layers that project relative positions beside the text"""
    token_types: ClassVar[int] = 2
    """rows of the token types' embedding where the configuration leaves it out"""
    known: ClassVar[Mapping[str, HFConfig]] = {}
    """Shapes of well-known encoders, so that planning them needs neither network nor weights: the keys of the published
    `config.json` that shapes follow from; the rest is the default of the `model_type` in `transformers`."""

    @property
    def own_names(self) -> str:
        """What names of modules begin with in encoders of this family, and in other kinds of models do not."""
        return f"{self.prefix}."

    def key(self, config: HFConfig, name: str, default: Any = None) -> Any:
        """A value of the Hugging Face configuration by BERT's name for it.

        `to_dict` of a live configuration and `config.json` may hold either spelling.
        """
        for key in (self.spelling.get(name, name), name):
            if config.get(key) is not None:
                return config[key]
        return self.defaults.get(name, default)

    # --- shapes ---------------------------------------------------------------------------------------

    def check_shape(self, name: str, config: HFConfig) -> None:
        """Refuse the rare variations whose tensors the family does not describe. Raises: UserError."""
        quantized = ["quantization_config"] if "quantization_config" in config else []
        for key in (*quantized, *self.unsupported(config)):
            raise UserError(f"model.name: '{name}' has {key} = {config.get(key)!r}, which is not supported")

    def unsupported(self, config: HFConfig) -> Iterator[str]:
        """Keys whose values the family does not describe."""
        yield from ()

    def number(self, config: HFConfig, key: str, default: int | None = None) -> int:
        """A size. Raises: UserError when it is none."""
        value = self.key(config, key, default)
        if not isinstance(value, int) or value < 0:
            raise UserError(f"model.name: its config.json gives {key} = {value!r}, expected a whole number")
        return value

    def dims(self, config: HFConfig) -> Dims:
        """The numbers of a configuration. Raises: UserError when one is missing or none."""
        hidden = self.number(config, "hidden_size")
        return Dims(
            vocabulary=self.number(config, "vocab_size"),
            embedding=hidden,
            hidden=hidden,
            layers=self.number(config, "num_hidden_layers"),
            heads=self.number(config, "num_attention_heads"),
            intermediate=self.number(config, "intermediate_size"),
            positions=self.number(config, "max_position_embeddings", 512),
            token_types=self.number(config, "type_vocab_size", self.token_types) if self.token_types else 0,
        )

    def position_padding(self, config: HFConfig) -> int | None:
        """The padding id that positions are counted around, as in fairseq's models; None where they start at zero."""
        return None

    def tensors(self, dims: Dims, config: HFConfig, num_labels: int) -> Iterator[Tensor]:
        """Every parameter of the classification model."""
        yield from self.embeddings(dims, config)
        for index in range(dims.layers):
            yield from self.layer_tensors(self.layer.format(index), dims)
        yield from self.extras(dims, config)
        yield from linear(self.dense, dims.hidden, dims.hidden)
        yield from linear(self.projection, dims.hidden, num_labels)

    def embeddings(self, dims: Dims, config: HFConfig) -> Iterator[Tensor]:
        """Words, positions, token types and their norm."""
        base = f"{self.prefix}.embeddings"
        yield Tensor(f"{base}.word_embeddings.weight", (dims.vocabulary, dims.embedding))
        yield Tensor(f"{base}.position_embeddings.weight", (dims.positions, dims.embedding))
        if dims.token_types:
            yield Tensor(f"{base}.token_type_embeddings.weight", (dims.token_types, dims.embedding))
        yield from norm(f"{base}.LayerNorm", dims.embedding)

    def layer_tensors(self, layer: str, dims: Dims) -> Iterator[Tensor]:
        """One layer's linear layers and norms."""
        for word, path in self.sites.items():
            yield from linear(f"{layer}.{path}", *site_shape(word, dims))
        for path in (self.attention_norm, self.ffn_norm):
            yield from norm(f"{layer}.{path}", dims.hidden)

    def extras(self, dims: Dims, config: HFConfig) -> Iterator[Tensor]:
        """What it adds outside its layers."""
        yield from ()

    # --- a new head -----------------------------------------------------------------------------------

    def draw_head(self, new: Mapping[str, torch.Tensor], config: HFConfig) -> None:
        """Fill what a checkpoint lacks of the head from torch's generator, draw for draw as the model class does.

        new
            By name, in the order of the modules.
        """
        for name, value in new.items():
            self.draw(name, value, config)

    def draw(self, name: str, value: torch.Tensor, config: HFConfig) -> None:
        """Fill one tensor: a matrix from a normal distribution, a norm with ones, a bias with zeros."""
        if name.endswith(".bias"):
            value.zero_()
        elif value.ndim > 1:
            value.normal_(0.0, self.head_deviation(config))
        else:
            value.fill_(1.0)

    def head_deviation(self, config: HFConfig) -> float:
        """Of the numbers that a new linear layer begins with."""
        return float(self.key(config, "initializer_range") or 0.02)

    # --- the fast engine ------------------------------------------------------------------------------

    arrangement: ClassVar[Arrangement] = "post_norm"
    words: ClassVar[str] = "embeddings.word_embeddings"
    """path of the word embedding, below the encoder"""
    embedding_norm: ClassVar[str] = "embeddings.LayerNorm"
    """path of its norm, below the encoder"""
    final_norm: ClassVar[str | None] = None
    """path of the norm after the last layer"""
    head_norm: ClassVar[str | None] = None
    """path of the norm before the head's projection"""
    head_activation: ClassVar[str] = "tanh"
    """between the head's two linear layers"""
    drops_head_input: ClassVar[bool] = True
    embedding_projection: ClassVar[str | None] = None
    """path of the linear layer that brings narrow embeddings to the hidden width, where a model has one"""
    relative_bias: ClassVar[str | None] = None
    """table of attention biases by distance, shared by all layers"""

    def why_not_fast(self, config: HFConfig) -> str | None:
        """Why the fast engine cannot run an encoder; None when it can."""
        activation = self.key(config, "hidden_act", "gelu")
        if activation not in ACTIVATIONS:
            return f"its feed-forward layers compute {', '.join(ACTIVATIONS)}, this encoder {activation}"
        if config.get("position_embedding_type", "absolute") != "absolute":
            return f"this encoder has {config['position_embedding_type']} positions"
        if config.get("is_decoder"):
            return "this encoder is configured as a decoder"
        return None

    def numbers(self, config: HFConfig) -> Numbers:
        """What the engine computes with."""
        hidden_dropout = float(self.key(config, "hidden_dropout_prob", 0.1))
        head_dropout = self.head_dropout(config, hidden_dropout)
        return Numbers(
            hidden=int(self.key(config, "hidden_size", 768)),
            layers=int(self.key(config, "num_hidden_layers", 12)),
            heads=int(self.key(config, "num_attention_heads", 12)),
            intermediate=int(self.key(config, "intermediate_size", 3072)),
            positions=int(self.key(config, "max_position_embeddings", 512)),
            epsilon=float(self.key(config, "layer_norm_eps", 1e-12)),
            activation=self.key(config, "hidden_act", "gelu"),
            embedding_dropout=hidden_dropout,
            hidden_dropout=hidden_dropout,
            attention_dropout=float(self.key(config, "attention_probs_dropout_prob", 0.1)),
            attention_output_dropout=hidden_dropout,
            head_dropout=head_dropout,
            head_input_dropout=head_dropout if self.drops_head_input else 0.0,
            head_activation=self.head_activation,
            pad_id=self.position_padding(config),
        )

    def head_dropout(self, config: HFConfig, hidden_dropout: float) -> float:
        """Rate of the head's dropout."""
        rate = self.key(config, "classifier_dropout")
        return hidden_dropout if rate is None else float(rate)

    def position_embeddings(self, config: HFConfig) -> str | None:
        """Path of the table that is added by position, where there is one."""
        return f"{self.prefix}.embeddings.position_embeddings"

    def constant_embeddings(self, config: HFConfig) -> tuple[str, ...]:
        """Tables whose first row is added to every token, since no text has another type."""
        types = self.number(config, "type_vocab_size", self.token_types) if self.token_types else 0
        return (f"{self.prefix}.embeddings.token_type_embeddings",) if types else ()

    def pools_mean(self, config: HFConfig) -> bool:
        """Whether the model's own head reads the mean of a text's tokens, not its first."""
        return False

    def rotary(self, config: HFConfig, index: int) -> Rotary:
        """A layer's positions, where the arrangement is pre_norm."""
        raise NotImplementedError

    def bias_by_distance(self, table: torch.Tensor, length: int) -> torch.Tensor:
        """Biases of attention scores from the table `relative_bias`. Shape: (heads, length, length)"""
        raise NotImplementedError


class FairseqPositions(Family):
    """Positions counted from behind the padding id, as RoBERTa's are."""

    def position_padding(self, config: HFConfig) -> int | None:
        padding = config.get("pad_token_id")
        return 1 if padding is None else int(padding)


def linear(name: str, d_in: int, d_out: int, bias: bool = True) -> Iterator[Tensor]:
    """The tensors of a linear layer."""
    yield Tensor(f"{name}.weight", (d_out, d_in))
    if bias:
        yield Tensor(f"{name}.bias", (d_out,))


def norm(name: str, width: int, bias: bool = True) -> Iterator[Tensor]:
    """The tensors of a LayerNorm."""
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


def shape(
    model_type: str, vocabulary: int, hidden: int, layers: int, heads: int, inner: int, **more: Any
) -> dict[str, Any]:
    """An entry of `Family.known`."""
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
