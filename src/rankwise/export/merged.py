"""Plain `transformers`: the adapter merged into its base, a folder that `pipeline` opens."""

from __future__ import annotations

from pathlib import Path

from rankwise.errors import UserError
from rankwise.export.subject import Subject
from rankwise.export.targets import Options, Written
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
    model, tokenizer = subject.model, subject.tokenizer
    model.config.name_or_path = subject.name
    tokenizer.model_max_length = subject.max_length
    with quiet():
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    return Written("merged, for transformers", _USE, _LOAD, unwanted=("peft",))
