"""What is exported: a trained classifier as a plain module in fp32, with all that its answers depend on."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rankwise import data, files
from rankwise.config import Config
from rankwise.data.tokens import encode
from rankwise.errors import UserError
from rankwise.models import adapter_file, tokenizer_of
from rankwise.models.adapter_details import DETAILS, details
from rankwise.models.classifier import ReferenceClassifier, logits_of
from rankwise.planning import encoder_of
from rankwise.runs.folder import Run, open_run

Floats = NDArray[np.float32]

TOLERANCE = 1e-4
"""how far logits in fp32 may be apart, of logits around one: other orders of the same sums differ by a tenth of it"""
PROOF_ROWS = 64
BATCH = 32


@dataclass
class Subject:
    """A trained classifier.

    model
        A `transformers` classification model with the adapter merged, in fp32; a prompt, which is in no weight, stays
        PEFT's wrapper around it.
    """

    name: str
    adapter: Path
    run: Run | None
    config: Config
    model: Any
    merged: bool
    """whether the adapter is in the weights"""
    tokenizer: Any
    label_names: list[str]
    max_length: int
    temperature: float
    """1.0 where it was never calibrated"""
    proof_logits: Floats
    """of the unmerged adapter on `proof_texts`, each text alone. Shape: (texts, classes)"""
    proof_texts: list[str]
    """as cleaned"""

    @property
    def multi_label(self) -> bool:
        """Whether a text may carry several labels."""
        return self.config.data.multi_label

    @property
    def scale(self) -> float:
        """What a difference of logits is measured against."""
        return max(1.0, float(np.abs(self.proof_logits).max()))

    def difference(self, logits: Floats) -> float:
        """The largest difference from the proof's logits; infinite for answers that are not numbers."""
        largest = float(np.abs(logits - self.proof_logits).max())
        return largest if np.isfinite(largest) else float("inf")

    def check(self, logits: Floats, what: str) -> float:
        """The largest difference of logits.

        Raises: UserError when it is more than rounding.
        """
        largest = self.difference(logits)
        if not largest <= TOLERANCE * self.scale:
            raise UserError(
                f"{what} does not repeat the classifier: logits differ by {largest:.3g}, "
                f"at most {TOLERANCE * self.scale:.1g} is rounding; nothing was written"
            )
        return largest

    def logits(self, texts: list[str]) -> Floats:
        """Of the merged model. Shape: (texts, classes)"""
        return _logits(self.model, self.tokenizer, texts, self.max_length, BATCH)

    @cached_property
    def validation(self) -> data.Rows | None:
        """The run's validation rows, None where they can no longer be read as they were."""
        return self._rows("validation")

    @cached_property
    def train(self) -> data.Rows | None:
        """The run's training rows, or None."""
        return self._rows("train")

    def _rows(self, role: str) -> data.Rows | None:
        if self.run is None or self.config.data.train is None:
            return None
        try:
            roles = data.load(self.config.data, roles=(role,), label_names=self.label_names, audit=False)
        except (UserError, OSError, ImportError):
            return None
        rows: data.Rows | None = getattr(roles, role)
        recorded = self.run.result.get("data", {}).get(role, {}).get("sha256")
        return rows if rows is not None and recorded in (None, rows.sha256) else None


def subject_of(path: str | Path) -> Subject:
    """The classifier of a run's folder, a search's (its winner) or any PEFT adapter's, merged and the merge checked.

    Raises: UserError when the folder is none of these, or merging changes its answers.
    """
    folder, run = Path(path), None
    if not (folder / "adapter_config.json").is_file():
        run = open_run(folder)
        folder = run.adapter
    told = details(folder)
    config = told.config if run is None else run.config
    tokenizer = tokenizer_of(folder if (folder / "tokenizer.json").is_file() else config.model)
    model = adapter_file.load(folder)
    max_length = config.data.max_length or told.max_length or encoder_of(config.model).positions
    subject = Subject(
        name=(run.path if run else folder).resolve().name,
        adapter=folder,
        run=run,
        config=config,
        model=model,
        merged=not model.active_peft_config.is_prompt_learning,
        tokenizer=tokenizer,
        label_names=list(told.label_names),
        max_length=max_length,
        temperature=_temperature(folder),
        proof_logits=np.zeros((0, 0), np.float32),
        proof_texts=[],
    )
    subject.proof_texts = _proof_texts(subject)
    subject.proof_logits = _logits(model, tokenizer, subject.proof_texts, max_length, 1)
    if subject.merged:
        subject.model = model.merge_and_unload().eval()
        subject.check(subject.logits(subject.proof_texts), "the adapter merged into its base")
    for parameter in subject.model.parameters():
        parameter.requires_grad_(False)
    return subject


def _logits(model: nn.Module, tokenizer: Any, texts: list[str], max_length: int, batch_size: int) -> Floats:
    classifier = ReferenceClassifier(model, pad_token_id=tokenizer.pad_token_id, precision="fp32")
    logits: Floats = logits_of(classifier, encode(texts, tokenizer, max_length), batch_size)
    return logits


def _temperature(adapter: Path) -> float:
    path = adapter / DETAILS
    told = files.read_json(path) if path.is_file() else {}
    return float(told.get("calibration", {}).get("temperature", 1.0))


def _proof_texts(subject: Subject) -> list[str]:
    """Texts that every artefact must answer alike: none, one and too many tokens, foreign letters, validation rows."""
    vocabulary = sorted(subject.tokenizer.get_vocab())
    chance = np.random.default_rng(0)
    lengths = [1, 2, 3, 5, 8, 13, 21, 34, subject.max_length + 20]
    made = [" ".join(chance.choice(vocabulary, length)) for length in lengths]
    rows = subject.validation
    real = [] if rows is None else rows.texts[:PROOF_ROWS]
    return ["", "É 你好 🙂 \u200b end", *made, *real]


def export_copy(module: nn.Module) -> nn.Module:
    """A module of two tensors and one result, as exporters take it: (texts, tokens) twice -> logits (texts, classes)."""

    class Plain(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits

    return Plain(copy.copy(module)).eval()
