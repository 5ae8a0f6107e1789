"""What is exported: a trained classifier as a plain module in fp32, with all that its answers depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rankwise import data, records
from rankwise.data.cleaning import PAIR
from rankwise.errors import UserError
from rankwise.inference import saved as saving
from rankwise.inference.adapter import PROMPTS
from rankwise.inference.reference import peft_model
from rankwise.inference.saved import SavedClassifier
from rankwise.models.classifier import ReferenceClassifier, logits_of
from rankwise.records import SearchRecord
from rankwise.records.search import RECORD
from rankwise.runs.folder import Run, is_recorded, open_run
from rankwise.runs.texts import rows_again

Floats = NDArray[np.float32]

TOLERANCE = 1e-4
"""how far logits in fp32 may be apart, of logits around one: other orders of the same sums differ by a tenth of it"""
PROOF_ROWS = 64
BATCH = 32


@dataclass(frozen=True)
class Proof:
    """Texts and what the unmerged adapter says of each, asked alone."""

    texts: list[str]
    """as cleaned"""
    logits: Floats
    """Shape: (texts, classes)"""

    @property
    def bound(self) -> float:
        """The largest difference that is rounding."""
        return TOLERANCE * max(1.0, float(np.abs(self.logits).max()))

    def check(self, logits: Floats, what: str) -> float:
        """The largest difference of logits.

        Raises: UserError when it is more than rounding, or they are no numbers.
        """
        largest = float(np.abs(logits - self.logits).max())
        if not largest <= self.bound:
            raise UserError(
                f"{what} does not repeat the classifier: logits differ by {largest:.3g}, "
                f"at most {self.bound:.1g} is rounding; nothing was written"
            )
        return largest


@dataclass
class Subject:
    """A trained classifier.

    model
        A `transformers` classification model with the adapter merged, in fp32; a prompt, which is in no weight, stays
        PEFT's wrapper around it.
    """

    name: str
    saved: SavedClassifier
    run: Run | None
    model: Any
    proof: Proof
    notes: tuple[str, ...] = ()
    """what a reader of the export should know"""

    @property
    def merged(self) -> bool:
        """Whether the adapter is in the weights."""
        return self.saved.adapter.kind not in PROMPTS

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors that it reads of a text; of pairs also which of the two each token is of, where the encoder has that."""
        names = ("input_ids", "attention_mask")
        has_types = self.saved.pair and getattr(self.model.config, "type_vocab_size", 0) > 1
        return (*names, "token_type_ids") if has_types else names

    def spoken(self, texts: Sequence[str]) -> list[Any]:
        """Texts as another program is given them: of pairs, lists of two."""
        return [text.split(PAIR, 1) for text in texts] if self.saved.pair else list(texts)

    @property
    def temperature(self) -> float:
        """What logits are divided by before they become probabilities: 1 where it was never calibrated."""
        return self.saved.temperature or 1.0

    def logits(self, texts: list[str]) -> Floats:
        """Of the merged model. Shape: (texts, classes)"""
        return _logits(self.model, self.saved, texts, BATCH)

    @cached_property
    def validation(self) -> data.Rows | None:
        """The run's validation rows, None where they can no longer be read as they were."""
        return rows_again(self.run, "validation")

    @cached_property
    def train(self) -> data.Rows | None:
        """The run's training rows, or None."""
        return rows_again(self.run, "train")


def subject_of(path: str | Path) -> Subject:
    """The classifier of a run's folder, a search's (its winner) or any PEFT adapter's, merged and the merge checked.

    A search's winner that words answer beside stands for the run without them, which no exported file has a place for.

    Raises: UserError when the folder is none of these, or merging changes its answers.
    """
    path, notes = _without_words(path)
    saved, run = saving.read(path), open_run(path) if is_recorded(path) else None
    saved.require_no_words("an export")
    model = peft_model(saved)
    rows = rows_again(run, "validation")
    texts = _proof_texts(saved) + ([] if rows is None else rows.texts[:PROOF_ROWS])
    proof = Proof(texts, _logits(model, saved, texts, 1))
    subject = Subject((run.path if run else saved.folder).resolve().name, saved, run, model, proof, notes)
    if subject.merged:
        subject.model = merged(model).eval()
        proof.check(subject.logits(texts), "the adapter merged into its base")
    for parameter in subject.model.parameters():
        parameter.requires_grad_(False)
    return subject


def merged(model: Any) -> Any:
    """The `transformers` model inside PEFT's, every update in the weight that it is on.

    PEFT's own `merge_and_unload` fails for IA3 and VeRA beside a head of several layers.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    base = model.get_base_model()
    for name, module in list(base.named_modules()):
        parent, _, own = name.rpartition(".")
        if isinstance(module, BaseTunerLayer):
            module.merge()
            setattr(base.get_submodule(parent), own, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            setattr(base.get_submodule(parent), own, module.modules_to_save[module.active_adapter])
    return base


def _without_words(path: str | Path) -> tuple[str | Path, tuple[str, ...]]:
    """The run to export where a search's winner has words beside it, and what that comes to; else the path as it is."""
    if not (Path(path) / RECORD).is_file():
        return path, ()
    winner = records.read(Path(path) / RECORD, SearchRecord).winner
    if winner is None or winner.alone is None:
        return path, ()
    run = Run(Path(path) / winner.alone)
    scores = run.record.metrics.validation
    assert scores is not None
    return run.path, (
        f"Without the TF-IDF of words that answers beside it in {Path(path) / winner.run}, which has no place in a file for other "
        f"programs: {scores.accuracy:.4f} of the validation rows right, {winner.chosen:.4f} with it.",
    )


def _logits(model: nn.Module, saved: SavedClassifier, texts: list[str], batch_size: int) -> Floats:
    wrapped = ReferenceClassifier(model, pad_token_id=saved.tokenizer.pad_token_id, precision="fp32")
    classifier = wrapped.eval()  # which it is left in: what is read of the model afterwards shall drop nothing
    logits: Floats = logits_of(classifier, saved.tokens_of(texts), batch_size)
    return logits


def _proof_texts(saved: SavedClassifier) -> list[str]:
    """Texts that every artefact must answer alike: of none, one and too many tokens, and of foreign letters."""
    vocabulary = sorted(saved.tokenizer.get_vocab())
    chance = np.random.default_rng(0)
    lengths = [1, 2, 3, 5, 8, 13, 21, 34, saved.max_length + 20]
    made = [" ".join(chance.choice(vocabulary, length)) for length in lengths]
    texts = ["", "É 你好 🙂 \u200b end", *made]
    return [PAIR.join(pair) for pair in zip(texts, reversed(texts), strict=True)] if saved.pair else texts


class Plain(nn.Module):
    """A module of a few tensors and one result, as exporters take it."""

    def __init__(self, model: Any, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Shape of each: (texts, tokens) -> (texts, classes)"""
        logits: torch.Tensor = self.model(**dict(zip(self.inputs, tensors, strict=True))).logits
        return logits
