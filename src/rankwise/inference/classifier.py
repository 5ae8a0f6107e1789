"""The network of a saved classifier: one reader of its weights for the proof, the scores and every answer.

Adapters stay beside the weights, as they were trained: merged and rounded, a served answer would be another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rankwise.config import choices
from rankwise.encoders import Encoder
from rankwise.errors import UserError
from rankwise.inference import matching
from rankwise.inference.adapter import AdapterFiles
from rankwise.inference.saved import SavedClassifier
from rankwise.machine.device import device
from rankwise.machine.precision import is_here, precision_of
from rankwise.models import sources
from rankwise.models.classifier import ReferenceClassifier

if TYPE_CHECKING:
    from torch import Tensor

    from rankwise.engine.weights import SavedWeights

_ENGINES = ("auto", "fast", "reference")
_KNOWN_KEYS = frozenset(
    {"alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "exclude_modules"}
    | {"inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout"}
    | {"megatron_core", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern"}
    | {"revision", "target_modules", "task_type", "use_dora", "use_rslora"}
)
"""of an adapter_config.json that asks for plain LoRA or DoRA; whatever else is set there is left to peft"""


def load_classifier(saved: SavedClassifier, *, engine: str | None = None, precision: str | None = None) -> Any:
    """The network, on this machine's device, ready to answer.

    engine
        fast, reference, or auto, which is what answers fastest here, measured once a machine and kept; by default the
        training's, whose auto is fast where it can.
    precision
        As `model.precision`; by default the training's, or auto where this machine does not compute in that.

    Raises: UserError when the fast engine is asked for and cannot, or the weights are damaged.
    """
    wanted = engine or saved.engine
    if wanted not in _ENGINES:
        raise UserError(f"engine is {wanted!r}, expected one of {', '.join(_ENGINES)}")
    reason = None if wanted == "reference" else why_not_fast(saved)
    if wanted == "fast" and reason is not None:
        raise UserError(f"the fast engine cannot read {saved.folder}: {reason}; use engine auto or reference")
    ways: dict[str, Callable[[], Any]] = {
        "kernels": lambda: _fast(saved, precision_for(saved, precision, "fast")),
        "torch": lambda: _fast(saved, precision_for(saved, precision, "fast"), backend="torch"),
        "reference": lambda: _reference(saved, precision_for(saved, precision, "reference")),
    }
    if wanted == "reference" or reason is not None:
        return ways["reference"]()
    return ways[_fastest(saved, precision, ways) if engine == "auto" else "kernels"]()


def _fastest(saved: SavedClassifier, precision: str | None, ways: Mapping[str, Callable[[], Any]]) -> str:
    """Of the ways to compute, that which is fastest here."""
    from rankwise.inference import choosing

    encoder = saved.encoder
    shape = {
        "model": encoder.model_type,
        "dims": repr(encoder.dims),
        "precision": [precision_for(saved, precision, engine) for engine in ("fast", "reference")],
        "adapter": sorted(set(saved.adapter.updates.values())),
    }
    return choosing.fastest(shape, ways, vocabulary=saved.embedding_rows, positions=saved.max_length)


def why_not_fast(saved: SavedClassifier) -> str | None:
    """Why the fast engine cannot run a saved classifier; None when it can."""
    encoder, adapter = saved.encoder, saved.adapter
    return encoder.family.why_not_fast(encoder.hf_config) or _other_form(adapter, encoder)


def _other_form(adapter: AdapterFiles, encoder: Encoder) -> str | None:
    """What in an adapter is more than LoRA or DoRA on the linear layers that the engine knows."""
    config, family = adapter.config, encoder.family
    if adapter.kind != "LORA":
        return f"its type is {adapter.kind}, not LORA"
    if config.get("init_lora_weights", True) not in (True, False, "gaussian"):
        return f"init_lora_weights is {config['init_lora_weights']}, which changes the base when it loads"
    other = next((key for key, value in config.items() if value and key not in _KNOWN_KEYS), None)
    if other is not None:
        return f"{other} is set"
    plain = {tensor.name for tensor in encoder.tensors(2)}
    strange = next(
        (n for n in adapter.keys if n not in adapter.updates and n.replace(".base_layer.", ".") not in plain), None
    )
    if strange is not None:
        return f"it holds '{strange}', which is none of LoRA's tensors"
    head, sites = {family.dense, family.projection}, {site.module for site in encoder.sites}
    for name, module in adapter.updates.items():
        if module not in sites | head or ".lora_embedding_" in name:
            return f"it adapts '{module}', which is none of the linear layers known here"
        if module in head and name.endswith(".lora_magnitude_vector"):
            return "it has DoRA on the head"
    return None


def precision_for(saved: SavedClassifier, asked: str | None, engine: str) -> str:
    """What to compute in: what is asked for, else what it was trained in, where this machine can."""
    known = choices("model.precision")
    if asked is not None and asked not in known:
        raise UserError(f"precision is {asked!r}, expected one of {', '.join(known)}")
    wanted = asked or (saved.precision if is_here(saved.precision) else "auto")
    return precision_of(wanted, engine)


def _fast(saved: SavedClassifier, precision: str, backend: str = "auto") -> Any:
    from rankwise.engine import FastClassifier

    weights, encoder = weights_of(saved), saved.encoder
    made = FastClassifier(weights, encoder.model_type, dict(encoder.hf_config), precision=precision, backend=backend)
    return made.eval().to(device())


def weights_of(
    saved: SavedClassifier, *, only_head: bool = False, held: Mapping[str, Tensor] | None = None
) -> SavedWeights:
    """The base's tensors and the adapter's, for the fast engine.

    only_head
        Of the adapter.
    held
        Tensors of the base that are in memory already, to be taken in place of the file's.
    """
    from rankwise.engine.weights import SavedWeights

    adapter, family = saved.adapter, saved.encoder.family
    head = head_names(saved)
    tensors = adapter.tensors()
    return SavedWeights(
        {**_base_tensors(saved), **(held or {})},
        {name: value for name, value in tensors.items() if name.startswith(head)} if only_head else tensors,
        lambda module, rank: matching.scale_of(adapter.config, module, rank),
        family.prefix,
    )


def head_names(saved: SavedClassifier) -> tuple[str, ...]:
    """What the names of a head's tensors begin with."""
    family = saved.encoder.family
    return tuple(f"{name}." for name in (family.dense, family.projection, family.head_norm) if name)


def base_head(saved: SavedClassifier) -> dict[str, Tensor]:
    """Copies of what a base has of a head, by the names in its file: a tensor as the file has it keeps all of it mapped."""
    prefix, names = f"{saved.encoder.family.prefix}.", head_names(saved)
    tensors = _base_tensors(saved).items()
    return {
        name: value.clone() for name, value in tensors if name.startswith(names) or f"{prefix}{name}".startswith(names)
    }


def _base_tensors(saved: SavedClassifier) -> dict[str, Any]:
    """The base's tensors, of its one file or of its shards, or made anew from the training's seed."""
    if saved.base is None:
        from rankwise.inference.reference import base_of

        return dict(base_of(saved).state_dict())
    return dict(sources.tensors_of(saved.base))


def _reference(saved: SavedClassifier, precision: str) -> Any:
    from rankwise.inference.reference import peft_model

    model = peft_model(saved)
    pad = model.config.pad_token_id or 0
    return ReferenceClassifier(model, pad_token_id=pad, precision=precision).eval().to(device())
