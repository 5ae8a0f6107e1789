"""A static classifier distilled from a run: a vector a token, their mean, two small products; numpy and tokenizers alone.

The form is that of model2vec (Tulkens and van Dongen 2024): each token's vector begins as what the fine-tuned encoder makes
of it alone, reduced by principal components. Then the vectors and a head of two layers learn the classifier's own
probabilities on the training texts (Hinton et al. 2015).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankwise.errors import UserError
from rankwise.export import alone, beside
from rankwise.export.judge import judge
from rankwise.export.subject import Floats, Subject
from rankwise.export.targets import Options, Written
from rankwise.machine.seeds import own_generators

WEIGHTS = "model.npz"
_WIDTH = 256
_HIDDEN = 256
_MOST_BYTES = 28_000_000
"""of vectors: with tokenizer and head the folder stays under 30 MB, whatever the vocabulary"""
_MOST_PASSES = 40
_PATIENCE = 4
_HELD_OUT = 10
"""every tenth text is not learnt from: it tells when to stop"""
_TEXTS_A_STEP = 64
_LEAST_STEPS = 50
"""between two looks at the held-out texts, however few the others are"""
_RATE = 2e-3
_TOKENS_LEFT_OUT = 0.2
"""of a text at each step: a mean of a few words else learns the words of training by heart"""
_VOCABULARY_BATCH = 512

_SESSION = f"""WEIGHTS = dict(numpy.load(HERE / "{WEIGHTS}"))
VECTORS = WEIGHTS["vectors"].astype(numpy.float32)
TOKENIZER.no_padding()
"""
_SCORES = """counts = numpy.array([len(row.ids) for row in rows])
    ids = numpy.concatenate([row.ids for row in rows])
    means = numpy.add.reduceat(VECTORS[ids], numpy.cumsum(counts) - counts) / counts[:, None]
    hidden = numpy.maximum(means @ WEIGHTS["hidden_weight"] + WEIGHTS["hidden_bias"], 0)
    return hidden @ WEIGHTS["weight"] + WEIGHTS["bias"]"""


class Student(nn.Module):
    """The static classifier while it learns."""

    def __init__(self, vectors: Tensor, classes: int) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag.from_pretrained(vectors, freeze=False, mode="mean", sparse=True)
        self.hidden = nn.Linear(vectors.shape[1], _HIDDEN)
        self.out = nn.Linear(_HIDDEN, classes)

    def forward(self, ids: Tensor, starts: Tensor) -> Tensor:
        """Flat token ids (tokens,) and where each text starts (texts,) -> logits (texts, classes)"""
        logits: Tensor = self.out(F.relu(self.hidden(self.vectors(ids, starts))))
        return logits


def write(subject: Subject, folder: Path, options: Options) -> Written:
    """Distil, judge and write."""
    if subject.saved.pair:
        raise UserError(
            f"{subject.name} reads pairs of texts, and a mean of word vectors cannot tell which of two texts a word is of: "
            "export it with --to onnx or merged"
        )
    rows = subject.train
    if rows is None:
        raise UserError(
            f"{subject.name}: its training texts cannot be read again, and a static classifier learns from them: "
            "export the run where its data are"
        )
    options.say(f"asking the classifier about {len(rows):,} training texts")
    taught = subject.logits(rows.texts)
    tokens = [ids.astype(np.int64) for ids in subject.saved.tokens_of(rows.texts)]
    student = _taught(_vectors(subject), tokens, taught, subject.saved.multi_label)
    weights = _weights_of(student)
    np.savez(str(folder / WEIGHTS), **weights)
    beside.write_tokenizer(subject, folder)
    beside.write_program(subject, folder, needs="nothing else", imports="", session=_SESSION, scores=_SCORES)
    facts, report = _judged(subject, weights, folder)
    return Written(
        "static, for numpy",
        "`echo 'a text' | python predict.py` answers; it needs numpy and tokenizers, nothing else.",
        alone.SHIPPED,
        unwanted=("torch", "transformers", "peft", "onnxruntime"),
        facts=facts,
        expected=_answer(weights, subject, subject.proof.texts),
        report=report,
    )


def _judged(subject: Subject, weights: Mapping[str, Any], folder: Path) -> tuple[list[str], dict[str, Any]]:
    rows = subject.validation
    if rows is None:
        return ["Unjudged: the validation rows cannot be read again."], {"tried": []}
    started = time.perf_counter()
    after = _answer(weights, subject, rows.texts)
    speed = len(rows) / (time.perf_counter() - started)
    size = sum(path.stat().st_size for path in folder.iterdir())
    judgement = judge(
        "static", subject.logits(rows.texts), after, rows, saved=subject.saved, texts_per_s=speed, size=size
    )
    return [judgement.told()], {"tried": [judgement]}


def _answer(weights: Mapping[str, Any], subject: Subject, texts: Sequence[str]) -> Floats:
    """The logits by numpy, as `predict.py` computes them. Shape: (texts, classes)"""
    tokens = subject.saved.tokens_of(texts)
    vectors = weights["vectors"].astype(np.float32)
    means = np.stack([vectors[ids].mean(0) for ids in tokens])
    hidden = np.maximum(means @ weights["hidden_weight"] + weights["hidden_bias"], 0)
    logits: Floats = hidden @ weights["weight"] + weights["bias"]
    return logits


def _weights_of(student: Student) -> dict[str, Any]:
    return {
        "vectors": student.vectors.weight.detach().half().numpy(),
        "hidden_weight": student.hidden.weight.detach().t().contiguous().numpy(),
        "hidden_bias": student.hidden.bias.detach().numpy(),
        "weight": student.out.weight.detach().t().contiguous().numpy(),
        "bias": student.out.bias.detach().numpy(),
    }


@torch.no_grad()
def _vectors(subject: Subject) -> Tensor:
    """Every token as the encoder understands it alone, by its principal components. Shape: (vocabulary, width)"""
    tokenizer, model = subject.saved.tokenizer, subject.model
    encoder = model.get_base_model().base_model if hasattr(model, "get_base_model") else model.base_model
    count = len(tokenizer)
    pattern = subject.saved.tokens_of(["a"])[0]
    place = min(1, len(pattern) - 1)
    found = []
    for start in range(0, count, _VOCABULARY_BATCH):
        ids = torch.from_numpy(
            np.tile(pattern[: place + 2], (min(_VOCABULARY_BATCH, count - start), 1)).astype(np.int64)
        )
        ids[:, place] = torch.arange(start, start + len(ids))
        hidden = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        found.append(hidden[:, place])
    vectors = torch.cat(found)
    width = max(8, min(_WIDTH, vectors.shape[1], count, _MOST_BYTES // (2 * count)))
    vectors = vectors - vectors.mean(0)
    _, _, axes = torch.linalg.svd(vectors.t() @ vectors)
    vectors = vectors @ axes[:width].t()
    scaled: Tensor = (vectors / vectors.std()).contiguous()
    return scaled


def _taught(vectors: Tensor, tokens: Sequence[Any], taught: Floats, multi_label: bool) -> Student:
    """The student with the least loss on the held-out texts."""
    with own_generators(0):
        student = Student(vectors, taught.shape[1])
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.SparseAdam(list(student.vectors.parameters()), lr=_RATE),
        torch.optim.Adam([*student.hidden.parameters(), *student.out.parameters()], lr=_RATE),
    ]
    chance = np.random.default_rng(0)
    held_out = np.arange(0, len(tokens), _HELD_OUT)
    learnt = np.setdiff1d(np.arange(len(tokens)), held_out) if len(tokens) > _HELD_OUT else held_out
    least, waited, best = float("inf"), 0, {name: value.clone() for name, value in student.state_dict().items()}
    for _ in range(_MOST_PASSES):
        for _ in range(max(_LEAST_STEPS, len(learnt) // _TEXTS_A_STEP)):
            rows = chance.choice(learnt, _TEXTS_A_STEP)
            loss = _loss(student, [_thinned(tokens[int(row)], chance) for row in rows], taught[rows], multi_label)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
        with torch.no_grad():
            now = float(_loss(student, [tokens[int(row)] for row in held_out], taught[held_out], multi_label))
        if now < least:
            least, waited, best = now, 0, {name: value.clone() for name, value in student.state_dict().items()}
        else:
            waited += 1
            if waited == _PATIENCE:
                break
    student.load_state_dict(best)
    return student


def _thinned(ids: Any, chance: np.random.Generator) -> Any:
    """A text without some of its tokens, never without all. Shape: (tokens,)"""
    kept = ids[chance.random(len(ids)) >= _TOKENS_LEFT_OUT]
    return kept if len(kept) else ids


def _loss(student: Student, tokens: Sequence[Any], taught: Floats, multi_label: bool) -> Tensor:
    """Cross-entropy with the teacher's probabilities, nats a text."""
    starts = torch.from_numpy(np.cumsum([0, *(len(ids) for ids in tokens[:-1])]))
    logits = student(torch.from_numpy(np.concatenate(tokens)), starts)
    target = torch.from_numpy(taught)
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, target.sigmoid())
    return F.cross_entropy(logits, target.softmax(1))
