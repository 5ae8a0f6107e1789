"""Adapters as things to look at and to merge: which there are, what one holds, several made into one."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise import files
from rankwise.errors import UserError
from rankwise.inference import saved as saving
from rankwise.inference.adapter import AdapterFiles
from rankwise.inference.folders import adapter_folder
from rankwise.inference.saved import SavedClassifier
from rankwise.models.layout import CONFIG, RECORD, WEIGHTS
from rankwise.records import write
from rankwise.records.adapter import read_adapter

if TYPE_CHECKING:
    from torch import Tensor

MERGES = {"weighted": "cat", "ties": "ties", "dare": "dare_linear"}
"""ours to PEFT's names: a sum of updates; with signs elected (Yadav et al. 2023); thinned at random (Yu et al. 2024)"""


def found_in(folder: str | Path) -> list[dict[str, Any]]:
    """The adapters in a folder and below, each as `info` tells it or with the reason that it cannot be read.

    Raises: UserError when there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    told = []
    for place in sorted(file.parent for file in root.rglob(CONFIG)):
        try:
            told.append(_told(AdapterFiles.open(place)))
        except UserError as error:
            told.append({"folder": str(place), "unreadable": str(error)})
    return told


def info(path: str | Path) -> dict[str, Any]:
    """What an adapter holds: kind, base, ranks, labels, numbers by part, bytes; and whether it fits its base.

    Raises: UserError when it cannot be read.
    """
    adapter = AdapterFiles.open(adapter_folder(path))
    told = _told(adapter)
    try:
        saved = saving.read(path)
    except UserError as error:
        return told | {"fits": False, "reason": str(error)}
    return told | {
        "fits": True,
        "labels": saved.label_names,
        "multi_label": saved.multi_label,
        "max_tokens": saved.max_length,
        "truncation": saved.truncation,
        "temperature": saved.temperature,
    }


def _told(adapter: AdapterFiles) -> dict[str, Any]:
    updates = {name: math.prod(shape) for name, shape in adapter.shapes.items() if name in adapter.updates}
    others = sum(math.prod(shape) for name, shape in adapter.shapes.items() if name not in adapter.updates)
    labels = read_adapter(adapter.folder).labels
    return {
        "folder": str(adapter.folder),
        "kind": adapter.kind,
        "dora": bool(adapter.config.get("use_dora")),
        "base": adapter.config.get("base_model_name_or_path"),
        "rank": adapter.config.get("r"),
        "layers": len(set(adapter.updates.values())),
        "classes": len(labels) if labels is not None else None,
        "update_numbers": sum(updates.values()),
        "other_numbers": others,
        "bytes": adapter.path.stat().st_size,
    }


def merge(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    method: str = "weighted",
    weights: Sequence[float] | None = None,
    density: float = 0.5,
) -> dict[str, Any]:
    """Make one LoRA adapter of several on the same layers of one base, with the same labels; heads are averaged.

    method
        weighted: the exact sum of the updates by their weights; its rank is the sum of theirs. ties, dare: of A and B.
    weights
        One an adapter; equal ones that sum to one by default.
    density
        Share of numbers that TIES keeps, and that DARE does not drop.

    Returns: out, method, weights, rank, bytes.
    Raises: UserError when they do not go together; nothing is written then.
    """
    if method not in MERGES:
        raise UserError(f"--method {method}: expected one of {', '.join(MERGES)}")
    if not 0 < density <= 1:
        raise UserError(f"--density is {density}, expected a share above 0 and at most 1")
    adapters = [saving.read(path) for path in paths]
    for one in adapters:
        one.require_no_words("a merged adapter")
    shares = list(weights) if weights is not None else [1 / len(adapters)] * len(adapters)
    _check(adapters, shares)
    place = Path(out)
    if place.exists():
        raise UserError(f"--out {place} is there already: name another folder")
    tensors, rank = _merged(adapters, shares, method, density)
    first = adapters[0].adapter
    with files.new_folder(place) as folder:
        for file in first.folder.iterdir():
            if file.is_file() and file.name[0] != "." and file.name not in (WEIGHTS, CONFIG, "README.md"):
                shutil.copyfile(file, folder / file.name)
        _write(tensors, first, rank, folder)
        saving.read(folder)
    told = f"Made of {len(adapters)} adapters ({method}): {', '.join(one.folder.resolve().name for one in adapters)}.\n"
    files.write_text(place / "README.md", f"# Merged adapter\n\n{told}")
    return {
        "out": str(place),
        "method": method,
        "weights": shares,
        "rank": rank,
        "bytes": (place / WEIGHTS).stat().st_size,
    }


def _check(adapters: Sequence[SavedClassifier], weights: Sequence[float]) -> None:
    if len(adapters) < 2:
        raise UserError("merging takes two adapters or more")
    if len(weights) != len(adapters) or not all(math.isfinite(weight) for weight in weights):
        raise UserError(f"--weights gives {len(weights)} numbers for {len(adapters)} adapters")
    if sum(weights) <= 0:
        raise UserError(f"--weights sum to {sum(weights):g}: heads are averaged by them, which takes a sum above 0")
    first = adapters[0]
    for saved in adapters:
        name, config = saved.folder, saved.adapter.config
        if saved.adapter.kind != "LORA" or config.get("use_dora"):
            raise UserError(f"{name} is no plain LoRA adapter, which alone can be merged")
        if saved.base != first.base or (saved.seed != first.seed and saved.base is None):
            raise UserError(f"{name} is on another base than {first.folder}")
        if saved.label_names != first.label_names or saved.multi_label != first.multi_label:
            raise UserError(f"{name} has other labels than {first.folder}: serve them side by side instead")
        if any(getattr(saved, key) != getattr(first, key) for key in ("truncation", "preprocess", "pair")):
            raise UserError(
                f"{name} was trained on texts paired, cut or cleaned otherwise than {first.folder} (data.pair, "
                "data.truncation, data.preprocess): serve them side by side instead"
            )
        if saved.adapter.keys.keys() != first.adapter.keys.keys() or config.get("rank_pattern"):
            raise UserError(f"{name} changes other layers than {first.folder}, or has ranks that differ by layer")


def _merged(
    adapters: Sequence[SavedClassifier], weights: Sequence[float], method: str, density: float
) -> tuple[dict[str, Tensor], int]:
    """The merged adapter's tensors by name, and its rank."""
    import torch
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    from rankwise.inference.reference import base_of
    from rankwise.models.base import quiet

    ranks = {one.adapter.config["r"] for one in adapters}
    how = MERGES[method] + ("_svd" if len(ranks) > 1 and method != "weighted" else "")
    options = {} if method == "weighted" else {"density": density}
    names = [f"adapter{number}" for number in range(len(adapters))]
    model: Any = None
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, one in zip(names, adapters, strict=True):
            config = PeftConfig.from_pretrained(str(one.folder))
            config.modules_to_save = config.task_type = None  # PEFT merges no heads: they are averaged below
            if model is None:
                model = get_peft_model(base_of(one), config, adapter_name=name)
            else:
                model.add_adapter(name, config)
            updates = {
                one.adapter.file_key(key): value
                for key, value in one.adapter.tensors().items()
                if key in one.adapter.updates
            }
            set_peft_model_state_dict(model, updates, adapter_name=name)
        model.base_model.add_weighted_adapter(names, list(weights), "merged", combination_type=how, **options)
        state = get_peft_model_state_dict(model, adapter_name="merged")
    config = model.peft_config["merged"]
    first = adapters[0].adapter
    whole = [one.adapter.tensors() for one in adapters]
    total = sum(weights)
    tensors: dict[str, Tensor] = {}
    for name in first.keys:
        if name in first.updates:
            tensors[name] = state[first.file_key(name)].float().contiguous()
        else:
            mean = sum(weight / total * values[name] for weight, values in zip(weights, whole, strict=True))
            assert isinstance(mean, torch.Tensor)
            tensors[name] = mean.contiguous()
    return tensors, int(config.r)


def _write(tensors: dict[str, Tensor], first: AdapterFiles, rank: int, folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(
        {first.file_key(name): value for name, value in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"}
    )
    changes = {"r": rank, "lora_alpha": rank, "use_rslora": False, "alpha_pattern": {}, "rank_pattern": {}}
    files.write_json(folder / CONFIG, {**first.config, **changes})
    if (folder / RECORD).is_file():
        record = read_adapter(folder)
        record.calibration = record.decision = None  # which were of another classifier
        write(folder / RECORD, record)
