"""An adapter's folder as files: PEFT's configuration and the weights' names and shapes, without torch or peft.

What it cannot be is refused by its name before its base is looked for: another task's adapter, a pickle, another
library's, a pointer of Git LFS, a decoder's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from safetensors import safe_open

from rankwise import files
from rankwise.encoders import FAMILIES, Family
from rankwise.errors import UserError
from rankwise.models.layout import CONFIG, PICKLED, PREFIX, WEIGHTS
from rankwise.models.sources import check_safetensors

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]

PROMPT = "prompt_embeddings"
"""which peft loads beside the rest"""
PROMPTS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")
"""kinds whose file names the model's own modules without `model.`"""
_TASKS = {
    "TOKEN_CLS": "labels tokens (NER and the like), not texts",
    "QUESTION_ANS": "answers questions with spans of a text, it has no classes",
    "FEATURE_EXTRACTION": "gives embeddings, it has no classes",
    "CAUSAL_LM": "writes text, it has no classes",
    "SEQ_2_SEQ_LM": "writes text, it has no classes",
}
_COUNTERS = (".position_ids", ".token_type_ids")
"""of embeddings that older versions saved: 0, 1, 2, ..."""
_PLACES = re.compile(r"\.shira_indices$|^frod_s_(indices|size)\.")
"""of the numbers of a sparse update: whole, and rightly so"""
_UPDATE = r"lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|lora_E|ia3_l|vera_lambda_[bd]"
_NAMED = re.compile(rf"\.({_UPDATE})\.(?!weight$|bias$)[^.]+(\.weight|\.bias)?$")
"""an adapter's name behind an update's, which peft takes out when it saves"""


@dataclass(frozen=True)
class AdapterFiles:
    """A PEFT adapter's folder that may hold a text classifier.

    `keys` and `shapes` go by the names of the classification model's modules, whatever stands around them in the file:
    PEFT's prefix, a compiled or parallel model's, an adapter's name.
    """

    folder: Path
    config: Mapping[str, Any]
    """adapter_config.json"""
    keys: Mapping[str, str]
    """name to the file's key"""
    shapes: Mapping[str, Shape]

    @staticmethod
    def open(folder: Path) -> AdapterFiles:
        """Read the configuration and the header of the weights.

        Raises: UserError when the folder holds no whole adapter, or one that classifies no texts.
        """
        config = _config(folder)
        _check_weights(folder)
        shapes: dict[str, Shape] = {}
        types: dict[str, str] = {}
        with safe_open(folder / WEIGHTS, "numpy") as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                piece = file.get_slice(key)
                shapes[key], types[key] = tuple(piece.get_shape()), piece.get_dtype()
        keys = _by_name(shapes)
        numbers = [key for name, key in keys.items() if not _PLACES.search(name)]
        whole = next((key for key in numbers if "F" not in types[key]), None)  # F32, BF16, F8_E4M3, ...
        if whole is not None:
            raise UserError(
                f"{folder / WEIGHTS} holds '{whole}' in whole numbers ({types[whole]}), as quantisation leaves them without "
                "their scale: take the adapter as it was trained"
            )
        adapter = AdapterFiles(folder, config, keys, {name: shapes[key] for name, key in keys.items()})
        adapter._check_kind()
        return adapter

    @property
    def path(self) -> Path:
        """The weights' file."""
        return self.folder / WEIGHTS

    @property
    def kind(self) -> str:
        """LORA, IA3, ..."""
        return str(self.config.get("peft_type"))

    @cached_property
    def updates(self) -> Mapping[str, str]:
        """Names of what changes a module's weight, to that module."""
        return {name: match[1] for name in self.keys if (match := re.match(rf"(.+?)\.({_UPDATE})(\.|$)", name))}

    def file_key(self, name: str) -> str:
        """The key that PEFT gives a name."""
        if name == PROMPT:
            return name
        return f"base_model.{name}" if self.kind in PROMPTS or self.is_shared(name) else f"{PREFIX}{name}"

    def is_shared(self, name: str) -> bool:
        """Whether all modules share a tensor: it stands beside the model, called by the kind."""
        return self.kind not in ("LORA", "IA3") and name.startswith(f"{self.kind.lower()}_")

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, fp32 on the CPU; in memory of their own, since one that is kept would keep the file mapped.

        Raises: UserError when a number is not finite.
        """
        import torch

        found: dict[str, Tensor] = {}
        with safe_open(self.path, "pt") as file:
            for name, key in self.keys.items():
                value = file.get_tensor(key)
                found[name] = value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)
                if not bool(torch.isfinite(found[name]).all()):
                    raise UserError(
                        f"{self.path} holds numbers that are not finite (NaN or infinite) in '{key}': "
                        "its training has diverged, take an earlier checkpoint"
                    )
        return found

    def _check_kind(self) -> None:
        """Refuse updates of layers that no encoder known here has, before anything is looked up by the base's name."""
        stray = next((module for module in self.updates.values() if not _is_known(module)), None)
        if stray is None and "score.weight" in self.keys:
            stray = "score"  # the head of decoders
        if stray is not None:
            raise UserError(
                f"{self.path} trains '{stray}', which is in no text encoder known here ({', '.join(FAMILIES)}): it is of "
                "another kind of model, a decoder or one of images, or was saved inside one"
            )


def _config(folder: Path) -> Mapping[str, Any]:
    """adapter_config.json, of PEFT and of a task that classifies texts."""
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no {CONFIG}, expected the folder of a PEFT adapter")
    config = files.read_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise UserError(f"{folder / CONFIG} holds no object, expected the configuration of a PEFT adapter")
    if "peft_type" not in config:
        other = " of AdapterHub's library (adapters)" if _is_adapter_hubs(folder, config) else ", but not PEFT's"
        raise UserError(
            f"{folder} holds an adapter{other}: its {CONFIG} has no peft_type. Rankwise reads PEFT adapters; "
            "merge it into its base with the library that made it"
        )
    # PEFT writes both in capitals and reads no other; people write them by hand.
    config |= {key: config[key].upper() for key in ("peft_type", "task_type") if isinstance(config.get(key), str)}
    task = config.get("task_type")
    if config["peft_type"] == "POLY":
        raise UserError(
            f"{folder} is an adapter of several tasks (POLY): it asks which one a text is of, so it is not read"
        )
    if isinstance(task, str) and task in _TASKS:
        raise UserError(f"{folder} is an adapter for another task: task_type {task} {_TASKS[task]}")
    lora = config["peft_type"] == "LORA"
    try:
        msgspec.convert(config, _Lora if lora else _Places)
    except msgspec.ValidationError as error:
        what = "LoRA" if lora else "an adapter"
        raise UserError(f"{folder / CONFIG} is no configuration of {what}: {error}") from error
    return config


class _Places(msgspec.Struct, kw_only=True):
    """Where an adapter is (`matching`): names of modules, or regular expressions of them."""

    target_modules: str | list[str] | None = None
    exclude_modules: str | list[str] | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] | None = None

    def __post_init__(self) -> None:
        for patterns in self.patterns():
            for pattern in [patterns] if isinstance(patterns, str) else patterns or ():
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"'{pattern}' is no regular expression: {error}") from error

    def patterns(self) -> list[str | Iterable[str] | None]:
        """All that is taken as a regular expression."""
        whole = [names for names in (self.target_modules, self.exclude_modules) if isinstance(names, str)]
        return [*whole, self.modules_to_save, self.layers_pattern]


class _Lora(_Places, kw_only=True):
    """What LoRA's update is computed from."""

    r: Annotated[int, msgspec.Meta(ge=1)] = 8
    lora_alpha: float = 8
    rank_pattern: dict[str, Annotated[int, msgspec.Meta(ge=1)]] | None = None
    alpha_pattern: dict[str, float] | None = None

    def patterns(self) -> list[str | Iterable[str] | None]:
        """Those of ranks and scales too."""
        return [*super().patterns(), self.rank_pattern, self.alpha_pattern]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(map(math.isfinite, (self.lora_alpha, *(self.alpha_pattern or {}).values()))):
            raise ValueError("its alpha is not finite")


def _is_adapter_hubs(folder: Path, config: Mapping[str, Any]) -> bool:
    return (folder / "pytorch_adapter.bin").is_file() or {"model_class", "hidden_size"} <= config.keys()


def _check_weights(folder: Path) -> None:
    """Refuse weights that are absent, pickled, a pointer or cut short."""
    path = folder / WEIGHTS
    if path.is_file():
        check_safetensors(path)
    elif (folder / PICKLED).is_file():
        files.check_no_pointer(folder / PICKLED)
        raise UserError(
            f"{folder} has its weights as {PICKLED}, a pickle, which can run code when opened: make {WEIGHTS} of it "
            f"safely with  rankwise adapters convert {folder}"
        )
    else:
        raise UserError(f"{folder} holds no {WEIGHTS}: its weights were not saved or not copied")


def _by_name(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """The file's keys by the names of the classification model's modules.

    With `bias: all` PEFT also saves the biases of the head that it replaced (`original_module`), which count for nothing,
    and those of the trained head twice.
    """
    names: dict[str, str] = {}
    for key in shapes:
        name = key.replace("_orig_mod.", "").removeprefix("module.")
        name = name.removeprefix(PREFIX).removeprefix("base_model.")
        name = _NAMED.sub(r".\1\2", name)
        if name.endswith(".lora_magnitude_vector.weight"):
            name = name.removesuffix(".weight")
        if name in names:
            raise UserError(f"the adapter's file holds one tensor twice, as '{names[name]}' and '{key}'")
        if ".original_module." not in name and not name.endswith(_COUNTERS):
            names[name] = key
    return {_unwrapped(name, names): key for name, key in names.items() if not _is_double(name, names)}


def _unwrapped(name: str, names: Mapping[str, str]) -> str:
    """A name without `modules_to_save`, and without the adapter's name behind it."""
    module, wrapper, rest = name.partition(".modules_to_save.")
    return f"{module}.{rest.removeprefix('default.')}" if wrapper else name


def _is_double(name: str, names: Mapping[str, str]) -> bool:
    plain = _unwrapped(name, names)
    return plain != name and plain in names


def _is_known(module: str) -> bool:
    """Whether some encoder known here has such a module."""
    return any(_has(family, module) for family in FAMILIES.values())


def _has(family: Family, module: str) -> bool:
    if module in (family.dense, family.projection):
        return True
    layer = re.escape(family.layer).replace(re.escape("{}"), r"\d+")
    within = re.match(rf"{layer}\.(.+)$", module)
    if within:
        return within[1] in family.sites.values()
    return module.startswith(family.own_names)
