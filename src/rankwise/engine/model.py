"""The classifier: embeddings, encoder layers and head on packed tokens, trained or asked.

A way to run Hugging Face weights with PEFT adapters, not a format: tensors come from either's modules or files.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankwise.encoders import FAMILIES, Family, Numbers
from rankwise.encoders.deberta_v2 import DeBERTa
from rankwise.engine.cache import PrefixCache, in_packed_order
from rankwise.engine.disentangled import DisentangledLayer, RelativeEmbedding
from rankwise.engine.dropout import Stream
from rankwise.engine.frozen import FrozenLinear, hold
from rankwise.engine.fused import ACTIVATIONS, Lookup, embedded
from rankwise.engine.layer import EncoderLayer, Pass, Way
from rankwise.engine.native.backend import WIDTH_STEP, Backend, Choice, choose
from rankwise.engine.native.layer import NativeLayer, NativePass, through
from rankwise.engine.packing import Packed, pack
from rankwise.engine.prenorm import PlainNorm, PreNormLayer
from rankwise.engine.weights import (
    Adapter,
    Dense,
    LiveModel,
    Source,
    check_all_train,
    layer_of,
    norm_of,
)
from rankwise.errors import UserError
from rankwise.machine import segments
from rankwise.machine.memory import return_freed_memory, unload_mapped_files
from rankwise.machine.precision import as_precision, fastest
from rankwise.machine.transfer import sent


class FastClassifier(nn.Module):
    """An encoder with a classification head: packed token ids in, fp32 logits out.

    Its parameters are those that train, all in fp32, and with `from_peft` the PEFT model's own objects, so PEFT
    saves them as ever (`get_peft_model_state_dict`). Frozen tensors are outside its state.

    In training mode dropout is a function of (seed, step, number of the forward pass within the step): call
    `set_step` before each step, and a resumed run repeats the uninterrupted one bit for bit.

    The same code runs on a GPU, with plain instead of packed weights and torch's fused attention; its speed there has
    not been measured.
    """

    def __init__(
        self,
        source: Source,
        model_type: str,
        config: dict[str, Any],
        *,
        precision: str = "auto",
        backend: Backend | str = "auto",
        seed: int = 0,
    ) -> None:
        """Take an encoder over from a source, layer by layer, so that its weights never exist twice.

        precision
            Of the products of frozen weights and adapters: bf16, fp16 (with scaled losses), fp32, int8 (frozen weights alone, the
            adapters' bf16), or auto, which is bf16 where the machine has instructions for it. Residual stream, norms, softmax, head and trained parameters are fp32 in any case.
        backend
            What computes the layers on a processor: `auto` takes the kernels of the fastest instruction set that it has
            (`native.backend.choose`), where a wheel or a C++ compiler gives them; `torch` none.
        """
        super().__init__()
        family = FAMILIES.get(model_type)
        reason = f"no family {model_type}" if family is None else family.why_not_fast(config)
        if family is None or reason is not None:
            raise UserError(f"the fast engine cannot run this model: {reason}")
        self.family, self.sizes = family, family.numbers(config)
        self.arithmetic = fastest() if precision == "auto" else precision
        """the name of the precision of products with frozen weights"""
        self.precision = as_precision(self.arithmetic)
        self.backend = self._backend(backend)
        """whose kernels compute the layers; None: torch"""
        self._native: dict[nn.Module, NativeLayer] = {}
        self.stream = Stream(seed, max(self.sizes.intermediate, self.sizes.hidden, self.sizes.positions))
        _check_biases(source, family, config)
        self.embeddings = Embeddings(source, self.family, config, self.sizes, self.precision)
        head = Head(source, family, self.sizes)
        self.pooling = head.reads or ("mean" if family.pools_mean(config) else "first")
        """what the head reads of a text: its first token, the mean of all, or both"""
        laid_out: list[int] = []
        self.layers = nn.ModuleList(self._layers(source, config, laid_out))
        self.final_norm = (
            PlainNorm(norm_of(source, family.final_norm), self.sizes.epsilon) if family.final_norm else None
        )
        self.classifier = head
        self.prefix_cache: PrefixCache | None = None
        self.attention: Way | None = None
        """how; None: by the device"""
        for module in self.layers[self.frozen_layers :].modules() if any(True for _ in self.parameters()) else ():
            if isinstance(module, FrozenLinear):
                module.prepare_backward()
        return_freed_memory()
        unload_mapped_files(laid_out)

    def _layers(self, source: Source, config: dict[str, Any], laid_out: list[int]) -> Iterator[nn.Module]:
        """The layers that a text goes through, one after the other; one that several share comes several times.

        laid_out
            takes the addresses of the source's weights that are copied into layouts of their own
        """
        family, groups = self.family, self.family.dims(config).layers
        each = self.sizes.layers / groups
        epsilon = self.sizes.epsilon
        relative = RelativeEmbedding(source, family, config, epsilon) if isinstance(family, DeBERTa) else None
        for index in range(groups):
            weights = layer_of(source, family, index)
            firsts_only = index == groups - 1 and self.pooling == "first" and each == 1
            common = (weights, self.sizes, self.precision)
            layer: nn.Module
            if relative is not None:
                layer = DisentangledLayer(*common, relative=relative, firsts_only=firsts_only)
            elif family.arrangement == "pre_norm":
                layer = PreNormLayer(*common, rotary=family.rotary(config, index), firsts_only=firsts_only)
            else:
                layer = EncoderLayer(*common, firsts_only=firsts_only)
            for module in layer.modules():
                if isinstance(module, FrozenLinear):
                    module.lay_out(self.backend)
            laid_out += [dense.weight.data_ptr() for dense in weights.sites.values()]
            for dense in weights.sites.values():
                source.release(dense.path)
            yield from (layer for place in range(self.sizes.layers) if int(place / each) == index)

    def _backend(self, wanted: Backend | str) -> Backend | None:
        known = self.sizes.activation == "gelu"
        widths = (self.sizes.hidden, self.sizes.intermediate, self.sizes.head_width)
        if isinstance(wanted, Backend) and known:
            return wanted
        choice = choose(self.arithmetic, *widths) if known and wanted != "torch" else Choice(None, "torch computes it")
        if choice.backend is None and self.arithmetic == "int8":
            raise UserError(
                f"model.precision: int8 needs kernels of the engine's own: {choice.reason}; use bf16, or auto"
            )
        return choice.backend

    @classmethod
    def from_peft(
        cls,
        model: nn.Module,
        *,
        precision: str = "auto",
        backend: Backend | str = "auto",
        seed: int = 0,
    ) -> FastClassifier:
        """Take over a live `transformers` classification model, with a PEFT adapter or without.

        The model can no longer compute afterwards: the frozen weights of its layers are released. Its trained
        parameters stay where they are, shared.

        Raises: UserError for what the engine cannot compute or would not train.
        """
        live = LiveModel(model)
        config = dict(live.config)
        made = cls(live, str(config["model_type"]), config, precision=precision, backend=backend, seed=seed)
        check_all_train(live.trained, made)
        return made

    @property
    def computes_with(self) -> str:
        """The instruction set whose kernels compute, or torch."""
        return "torch" if self.backend is None else self.backend.isa.name

    # --- running --------------------------------------------------------------------------------------

    def collate(self, texts: Sequence[np.ndarray]) -> Packed:
        """Pack texts, given as token ids with their special tokens, on the classifier's device.

        With `cache_prefix`, their prefix comes along, computed now where it is not stored.
        """
        batch = self._pack(texts)
        if self.prefix_cache is not None:
            outputs = self.prefix_cache.fetch(texts, lambda missing: self._prefix([texts[row] for row in missing]))
            batch.prefix = sent(in_packed_order(outputs, batch), batch.ids.device)
        return batch

    def _pack(self, texts: Sequence[np.ndarray]) -> Packed:
        words, highest = len(self.embeddings.words), max(int(segments.ids_of(np.asarray(text)).max()) for text in texts)
        if highest >= words:
            raise UserError(
                f"the tokenizer gives a token numbered {highest}, but the model's embedding has {words} rows: "
                "the tokenizer is another model's"
            )
        return pack(
            texts,
            heads=self.sizes.heads,
            pad_id=self.sizes.pad_id,
            second_type=self.embeddings.second_type,
            device=self.embeddings.words.device,
        )

    def set_step(self, step: int) -> None:
        """Make the dropout of the next forward passes those of a step."""
        self.stream.set_step(step)

    def forward(self, batch: Packed) -> Tensor:
        """Logits of every text, in the order given, fp32. Shape: (texts, classes)"""
        shared = self._begin(batch, dropout=self.training)
        if batch.prefix is None:
            x, _ = self._through(self.layers, self.embeddings(batch, shared), shared)
        else:
            both = batch.prefix.float(), batch.prefix.to(self.precision)
            x, _ = self._through(self.layers[self.frozen_layers :], both, shared)
        logits: Tensor = self.classifier(self._read(x, batch), shared)
        return logits.index_select(0, batch.given)

    def _read(self, x: Tensor, batch: Packed) -> Tensor:
        """What the head reads of the last layer's output. Shape: (texts, hidden)"""
        last: Any = self.layers[-1]
        if self.pooling == "first" and not last.firsts_only:
            x = x.index_select(0, batch.firsts)
        if self.final_norm is not None:
            x = self.final_norm(x)
        if self.pooling == "first":
            return x
        mean = batch.mean(x)
        return mean if self.pooling == "mean" else torch.cat([x.index_select(0, batch.firsts), mean], dim=1)

    def _through(self, layers: Iterable[nn.Module], both: tuple[Tensor, Tensor], shared: Pass) -> tuple[Tensor, Tensor]:
        """The residual stream in fp32 and in the precision of products, through some layers. Shape: (rows, hidden)"""
        x, low = both
        if shared.backend is None:
            for layer in layers:
                x, low = layer(x, low, shared)
            return x, low
        natives = []
        for layer in layers:
            if layer not in self._native:
                assert isinstance(layer, EncoderLayer | PreNormLayer)
                self._native[layer] = NativeLayer(layer, shared.backend)
            natives.append(self._native[layer])
        return through(natives, x, low, NativePass(shared))

    def _apply(self, fn: Any, recurse: bool = True) -> FastClassifier:
        self._native = {}  # tensors may move
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_native": {}}  # a copy has tensors of its own

    def _begin(self, batch: Packed, *, dropout: bool) -> Pass:
        stream, device = self.stream if dropout else None, batch.ids.device
        by_device: dict[str, Way] = {"cpu": "explicit", "cuda": "ragged"}
        attention = self.attention or by_device.get(device.type, "rectangles")
        if stream is not None:
            seed = stream.begin(device)
            if attention != "explicit":  # the library's kernels draw from torch's own generator
                torch.manual_seed(seed)
        biases = [self.embeddings.bias(group.mask) for group in batch.groups]
        # A backend is for the processor and attends in its own way: where something else is asked for, torch computes.
        backend = self.backend if device.type == "cpu" and attention == "explicit" else None
        return Pass(batch, biases, self.embeddings.relative is None, backend, stream, attention)

    # --- frozen prefix --------------------------------------------------------------------------------

    @property
    def frozen_layers(self) -> int:
        """How many of the first layers nothing trains in or below."""
        if any(True for _ in self.embeddings.parameters()):
            return 0
        trained = (index for index, layer in enumerate(self.layers) if any(True for _ in layer.parameters()))
        return min(next(trained, len(self.layers) - 1), len(self.layers) - 1)

    def cache_prefix(
        self, folder: str | Path | None = None, *, max_mb: float = 4096.0, weights: str = ""
    ) -> PrefixCache:
        """Compute the frozen layers below the lowest adapter once a text, and reuse their output from then on.

        This changes training: nothing is dropped in those layers any more, and their output is rounded to bf16.

        folder
            Where caches are kept, each in a folder of its own by a fingerprint of the prefix, so that trials and runs
            may share one; a temporary folder when None.
        max_mb
            Largest size on disk; texts beyond it are computed each time.
        weights
            What names the base's weights (`weights_identity`), where the folder is shared between models.

        Raises: UserError when the lowest layer trains, so that there is no frozen prefix.
        """
        if self.frozen_layers == 0:
            raise UserError("there is no frozen prefix: something trains in the first layer; limit adapter.layers")
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="rankwise-prefix-")
            folder = self._temporary.name
        self.prefix_cache = PrefixCache(Path(folder) / self._fingerprint(weights), self.sizes.hidden, max_mb)
        return self.prefix_cache

    def forget_prefix(self) -> None:
        """Compute every layer in every pass again, as the saved adapter will."""
        if self.prefix_cache is not None:
            self.prefix_cache.close()
        self.prefix_cache = None

    def _fingerprint(self, weights: str) -> str:
        """A name for the prefix: the hash of its weights' name, and of what it makes of a probe text in this arithmetic."""
        vocabulary = len(self.embeddings.words)
        probe = np.linspace(0, vocabulary - 1, min(64, self.sizes.positions // 2)).astype(np.int64)
        (output,) = self._prefix([probe])
        content = output.view(torch.int16).numpy().tobytes() + bytes([self.frozen_layers]) + weights.encode()
        return hashlib.sha256(content).hexdigest()[:16]

    def _prefix(self, texts: Sequence[np.ndarray]) -> list[Tensor]:
        """The frozen layers' output of each text, without dropout. Shape of each: (tokens, hidden), bf16"""
        batch = self._pack(texts)
        with torch.no_grad():
            shared = self._begin(batch, dropout=False)
            x, _ = self._through(self.layers[: self.frozen_layers], self.embeddings(batch, shared), shared)
        lengths = [int(length) for group in batch.groups for length in group.lengths]
        pieces = torch.split(x[: batch.tokens].bfloat16().cpu(), lengths)
        return [pieces[place] for place in batch.given.tolist()]


def _check_biases(source: Source, family: Family, config: dict[str, Any]) -> None:
    """Refuse weights that lack a bias, which a layer may have none of but not lose. Raises: UserError."""
    names = (tensor.name for tensor in family.tensors(family.dims(config), config, 2))
    for name in names:
        of_encoder = name.startswith(f"{family.prefix}.") and name != f"{family.dense}.bias"
        if of_encoder and name.endswith(".bias") and source.optional(name) is None:
            raise UserError(f"neither the base nor the adapter holds '{name}'")


class Embeddings(nn.Module):
    """Sum of the embeddings of word, position and token type, norm, dropout; attention biases by distance."""

    words: Tensor
    positions: Tensor
    norm_weight: Tensor
    norm_bias: Tensor | None
    relative: Tensor | None

    def __init__(
        self, source: Source, family: Family, config: dict[str, Any], sizes: Numbers, precision: torch.dtype
    ) -> None:
        """precision: of products"""
        super().__init__()
        # In fp32: rounded to bf16, MiniLM's gradients end up further from exact ones than autocast's.
        hold(self, "words", source.tensor(f"{family.prefix}.{family.words}.weight").detach())
        table = family.position_embeddings(config)
        nothing = self.words.new_zeros(1, self.words.shape[1]).expand(sizes.positions, -1)
        positions = nothing if table is None else source.tensor(f"{table}.weight")
        constants = {table: source.tensor(f"{table}.weight") for table in family.constant_embeddings(config)}
        for rows in constants.values():
            positions = positions + rows[0]
        # A position of a pair's second text is a row of its own, so that one look-up adds both.
        types = [rows for table, rows in constants.items() if table.endswith("token_type_embeddings")]
        self.second_type = len(positions) if types and len(types[0]) > 1 else None
        if self.second_type is not None:
            positions = torch.cat([positions, positions - types[0][0] + types[0][1]])
        hold(self, "positions", positions.detach())
        norm = norm_of(source, f"{family.prefix}.{family.embedding_norm}")
        hold(self, "norm_weight", norm.weight.detach())
        hold(self, "norm_bias", norm.bias)
        self.projection: HeadLinear | None = None
        if family.embedding_projection and source.optional(f"{family.embedding_projection}.weight") is not None:
            self.projection = HeadLinear(source.dense(family.embedding_projection))
        relative = source.tensor(f"{family.relative_bias}.weight").detach() if family.relative_bias else None
        hold(self, "relative", relative)
        self.bias_by_distance = family.bias_by_distance
        self.epsilon, self.dropout, self.precision = sizes.epsilon, sizes.embedding_dropout, precision

    def forward(self, batch: Packed, shared: Pass) -> tuple[Tensor, Tensor]:
        """The residual stream's start, fp32 and in the precision of products. Shape: (tokens, hidden)"""
        tables, places = (self.words, self.positions), (batch.ids, batch.positions)
        lookup = Lookup(tables, places, self.norm_weight, self.norm_bias, self.epsilon)
        mask = shared.mask((len(batch.ids), self.words.shape[1]), self.dropout)
        if shared.backend is not None and self._is_plain():
            x, low = shared.backend.embedded(lookup, mask)
        else:
            x, low = embedded(lookup, mask, self.precision)
        if self.projection is not None:
            x = self.projection(x, shared)
            low = x.to(self.precision, copy=True)
        return x, low

    def _is_plain(self) -> bool:
        """Whether a backend may look up: not where the norm's bias trains, nor in ELECTRA's tables, of a width of their own."""
        fp32 = all(table.dtype == torch.float32 and table.is_contiguous() for table in (self.words, self.positions))
        frozen = self.norm_bias is not None and not self.norm_bias.requires_grad
        return fp32 and frozen and self.words.shape[1] % WIDTH_STEP == 0

    def bias(self, mask: Tensor) -> Tensor:
        """A group's padding mask with the encoder's biases by distance.

        mask
            Shape: (texts, 1, 1, longest)

        Returns. Shape: (texts, 1 or heads, 1 or longest, longest)
        """
        if self.relative is None:
            return mask
        # Our own kernels read it row by row.
        return mask + self.bias_by_distance(self.relative, mask.shape[-1]).contiguous()


class Head(nn.Module):
    """The classification head in fp32: the model's own on what it reads of a text, or a projection of pooled tokens alone
    (`head.pooling`), whose weight is a kernel over single tokens. Shape: (classes, features, 1)"""

    def __init__(self, source: Source, family: Family, sizes: Numbers) -> None:
        super().__init__()
        projection = HeadLinear(source.dense(family.projection))
        pooled = projection.weight.ndim == 3
        self.reads = ("mean" if projection.weight.shape[1] == sizes.hidden else "both") if pooled else None
        """of a text; None: what the model's own head does"""
        self.dense = None if pooled else HeadLinear(source.dense(family.dense))
        self.projection = projection
        norm = None if pooled else family.head_norm
        self.norm = PlainNorm(norm_of(source, norm), sizes.epsilon) if norm else None
        self.activation = ACTIVATIONS[sizes.head_activation][0]
        self.input_dropout, self.dropout = sizes.head_input_dropout, sizes.head_dropout

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """Shape: x (texts, features), result (texts, classes)"""
        if self.dense is not None:
            x = self.activation(self.dense(shared.dropped(x, self.input_dropout), shared))
        x = x if self.norm is None else self.norm(x)
        logits: Tensor = self.projection(shared.dropped(x, self.dropout), shared)
        return logits


class HeadLinear(nn.Module):
    """A small linear layer in fp32, trained or frozen, with LoRA or without, through ordinary autograd."""

    weight: Tensor
    bias: Tensor | None
    lora_A: Tensor | None
    lora_B: Tensor | None

    def __init__(self, dense: Dense) -> None:
        super().__init__()
        if dense.has_dora:
            raise UserError("the fast engine knows no DoRA on the head: use engine: reference")
        adapter = dense.adapter or Adapter.absent()
        values = (dense.weight, dense.bias, adapter.A, adapter.B)
        for name, value in zip(("weight", "bias", "lora_A", "lora_B"), values, strict=True):
            hold(self, name, value)
        self.scale, self.dropout = adapter.scale, adapter.dropout

    def forward(self, x: Tensor, shared: Pass) -> Tensor:
        """Shape: x (texts, d_in), result (texts, d_out)"""
        y = F.linear(x, self.weight.flatten(1), self.bias)
        if self.lora_A is None or self.lora_B is None:
            return y
        return y + self.scale * F.linear(F.linear(shared.dropped(x, self.dropout), self.lora_A), self.lora_B)
