"""Plain `transformers`: the adapter merged into its base, a folder that `pipeline` opens."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from rankwise.errors import UserError
from rankwise.export.subject import Subject
from rankwise.export.targets import Options, Written
from rankwise.machine.segments import HEAD_AND_TAIL
from rankwise.models.base import quiet

_LOAD = """
import numpy, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
def logits(texts):
    with torch.inference_mode():
        return model(**tokenizer(list(texts), truncation=True, padding=True, return_tensors="pt")).logits.numpy()
"""

# Transformers has no class whose head reads all tokens: the encoder is its own, and the head three lines.
_LOAD_POOLED = """
import numpy, torch
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer
model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
head = load_file(Path(folder) / "head.safetensors")
def logits(texts):
    tokens = tokenizer(list(texts), truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden, mask = model(**tokens)[0], tokens["attention_mask"][:, :, None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return (POOLED @ head["weight"].T + head["bias"]).numpy()
"""
_PAIRED = "[first for first, _ in texts], [second for _, second in texts]"
_USE_PAIRED = """```python
from transformers import pipeline

classify = pipeline("text-classification", "THIS_FOLDER", top_k=None, truncation=True)
classify([{"text": "the first", "text_pair": "the second"}])
```"""
_POOLED = {"mean": "mean", "both": "torch.cat([hidden[:, 0], mean], 1)"}

_USE = """```python
from transformers import pipeline

pipeline("text-classification", "THIS_FOLDER", top_k=None, truncation=True)(["a text"])
```"""


def write(subject: Subject, folder: Path, options: Options) -> Written:
    """Write the model and its tokenizer."""
    if not subject.merged:
        raise UserError(
            f"{subject.name} is trained tokens in front of a text and no change of a weight, so nothing can be merged: "
            "export it with --to onnx, which holds them too"
        )
    if subject.saved.truncation == HEAD_AND_TAIL:
        raise UserError(
            f"{subject.name} reads the first and the last tokens of a long text, and transformers keeps the first alone: export it "
            "with --to onnx, whose program cuts as it was trained, or train it with data.truncation=head"
        )
    if subject.saved.encoder.pooling != "first":
        return _write_pooled(subject, folder)
    model, tokenizer = subject.model, _settled(subject)
    model.config.name_or_path = subject.name
    with quiet():
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    use = _USE_PAIRED if subject.saved.pair else _USE
    return Written("merged, for transformers", use, _of_texts(_LOAD, subject), unwanted=("peft",))


def _settled(subject: Subject) -> Any:
    """transformers' tokenizer, and what it gives where it is not asked for more: as many tokens, and of pairs the types
    of each.
    """
    tokenizer = copy.deepcopy(getattr(subject.saved.tokenizer, "whole", subject.saved.tokenizer))
    tokenizer.model_max_length = subject.saved.max_length
    if subject.saved.pair:
        tokenizer.model_input_names = list(subject.inputs)
        tokenizer.init_kwargs["model_input_names"] = list(subject.inputs)  # which alone is saved
    return tokenizer


def _of_texts(program: str, subject: Subject) -> str:
    """A program that gives the tokenizer texts, or the two texts of each pair."""
    return program.replace("list(texts)", _PAIRED) if subject.saved.pair else program


def _write_pooled(subject: Subject, folder: Path) -> Written:
    """The encoder as `AutoModel` opens it, and the head beside it."""
    from safetensors.torch import save_file

    model, tokenizer = subject.model, _settled(subject)
    projection = model.get_submodule(subject.saved.encoder.family.projection)
    head = {"weight": projection.weight.squeeze(-1), "bias": projection.bias}
    save_file({name: value.detach().contiguous() for name, value in head.items()}, folder / "head.safetensors")
    with quiet():
        model.base_model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    load = _of_texts(_LOAD_POOLED, subject).replace("POOLED", _POOLED[subject.saved.encoder.pooling])
    use = f'```python\nfolder = "THIS_FOLDER"{load}```'
    return Written("merged, for transformers", use, load, unwanted=("peft",))
