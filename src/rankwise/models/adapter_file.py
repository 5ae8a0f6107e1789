"""The adapter's folder: PEFT's layout, written whole or not at all.

What trains is in the file, and so is whatever was created at random and kept frozen: plain `peft` loads it
with equal logits. Saving asks the Hub for nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rankwise import config as configuration
from rankwise import files
from rankwise.encoders import Encoder
from rankwise.methods import method_of
from rankwise.models.assembly import Assembly
from rankwise.models.layout import CONFIG, RECORD, WEIGHTS
from rankwise.planning.ledger import LOW_RANK_HEAD_SCALE, head_kind, wrapped_modules
from rankwise.records import AdapterRecord, record


def save(assembly: Assembly, folder: Path, *, tokenizer: Any = None, label_names: Sequence[str] | None = None) -> None:
    """Write an assembly's adapter, replacing the folder in one rename.

    PiSSA and OLoRA are written as plain LoRA of twice the rank, a low-rank head merged into its dense layer.
    """
    names = list(label_names or assembly.label_names)
    with files.new_folder(folder) as temporary:
        save_file(tensors_of(assembly), temporary / WEIGHTS, metadata={"format": "pt"})
        if assembly.model is None:
            files.write_json(temporary / CONFIG, _own_config(assembly))
        else:
            _pefts_config(assembly).save_pretrained(str(temporary))
        tree = configuration.to_dict(assembly.plan.config)
        if Path(tree["model"]["name"]).is_dir():  # so that the adapter loads from any working folder
            tree["model"]["name"] = str(Path(tree["model"]["name"]).resolve())
        record.write(temporary / RECORD, AdapterRecord.of(names, tree))
        files.write_text(temporary / "README.md", _card(assembly, names))
        if tokenizer is not None:
            tokenizer.save_pretrained(str(temporary))


def tensors_of(assembly: Assembly) -> dict[str, torch.Tensor]:
    """The adapter file's tensors by their keys, in fp32 on the CPU.

    Raises: RuntimeError: they are not those the plan foretold.
    """
    method = method_of(assembly.plan.config)
    values = {**assembly.frozen, **{name: value.detach() for name, value in assembly.trainable.items()}}
    if head_kind(assembly.plan.config) == "low_rank":
        _merge_dense(values, assembly)
    method.saved_values(assembly.model, values, assembly.initial)
    result = {}
    for entry in (entry for entry in assembly.plan.entries if entry.saved):
        value = values[entry.name].float().cpu().contiguous()
        if tuple(value.shape) != entry.shape and not method.ranks_move:
            raise RuntimeError(f"{entry.name} has shape {tuple(value.shape)}, the plan said {entry.shape}")
        result[method.file_key(entry.name)] = value.clone()
    return result


def _merge_dense(values: dict[str, torch.Tensor], assembly: Assembly) -> None:
    """W + scale B A, in place of a frozen dense layer and its update."""
    dense = assembly.plan.encoder.family.dense
    update = values[f"{dense}.lora_B.weight"].float() @ values[f"{dense}.lora_A.weight"].float()
    values[f"{dense}.weight"] = values[f"{dense}.weight"].to(update.device) + LOW_RANK_HEAD_SCALE * update


def _own_config(assembly: Assembly) -> dict[str, Any]:
    """What PEFT reads of a LoRA adapter, in its words; what is left out has PEFT's defaults."""
    config, encoder = assembly.plan.config, assembly.plan.encoder
    options = method_of(config).lora_options(config, encoder)
    if isinstance(options["target_modules"], list):
        options["target_modules"] = sorted(options["target_modules"])
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": assembly.base_name,
        "revision": config.model.revision,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": list(wrapped_modules(config, encoder)),
        "peft_version": version("peft"),
        **options,
    }


def _pefts_config(assembly: Assembly) -> Any:
    """PEFT's own configuration as it is to be read: for inference, the base named, the rank that is in the file."""
    wanted, config = copy.deepcopy(assembly.model.peft_config["default"]), assembly.plan.config
    wanted.inference_mode = True
    wanted.revision = config.model.revision
    for field in ("target_modules", "feedforward_modules"):
        if isinstance(getattr(wanted, field, None), (set, list)):
            setattr(wanted, field, sorted(getattr(wanted, field)))
    method_of(config).saved_peft_config(wanted, config.adapter)
    return wanted


def _card(assembly: Assembly, label_names: Sequence[str]) -> str:
    """The model card: what the adapter is, what it needs and how it is loaded."""
    planned = assembly.plan
    return f"""---
base_model: {planned.model}
library_name: peft
pipeline_tag: text-classification
---
# {planned.config.adapter.method} adapter for {planned.model}

Classifies texts into {len(label_names)} classes: {", ".join(label_names)}.
Trained parameters: {planned.trainable:,} ({", ".join(f"{group} {n:,}" for group, n in planned.groups.items() if n)}).

```python
import rankwise
rankwise.load("THIS_FOLDER").predict(["a text"])
```

{peft_lines("THIS_FOLDER", planned.encoder, len(label_names))}
"""


def peft_lines(folder: str, encoder: Encoder, classes: int) -> str:
    """How plain `peft` reads an adapter, for its card."""
    if encoder.pooling == "first":
        return f"""Plain `peft` reads it too:

```python
from peft import AutoPeftModelForSequenceClassification

AutoPeftModelForSequenceClassification.from_pretrained("{folder}", num_labels={classes})
```"""
    pooled = "mean" if encoder.pooling == "mean" else "torch.cat([hidden[:, 0], mean], 1)"
    projection = f"base_model.model.{encoder.family.projection}"
    return f"""Its head reads the {encoder.pooling} of a text's tokens, which plain `peft` refuses by the projection's shape; so:

```python
saved = load_file("{folder}/adapter_model.safetensors")
encoder = PeftModel.from_pretrained(base, "{folder}", ignore_mismatched_sizes=True).eval().base_model.model.base_model
hidden, mask = encoder(**batch).last_hidden_state, batch["attention_mask"][..., None]
mean = (hidden * mask).sum(1) / mask.sum(1)
logits = {pooled} @ saved["{projection}.weight"].squeeze(-1).T + saved["{projection}.bias"]
```"""
