"""What stands beside `auto` on real sets: each contestant trains on the rows it is given and answers the test texts.

python benchmarks/real_peers.py PEER TRAIN TEST ANSWERS.json [--seed 0] [--minutes 3] [--base FOLDER] [--static FOLDER]

Run by `real_sets.py`, a process a contestant, so that each has a clock and a memory of its own. No contestant sees a
test label. A new one is a function here and an entry in PEERS.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from rankwise import cli, data, packaged
from rankwise import config as configuration

STARTED = time.time()
# As the command line does for `auto`: beside other work, threads that spin while they wait cost twenty times as much.
cli.wait_politely()
LENGTH = 256
"""tokens read of a text, as sentence-transformers reads them with MiniLM"""
_SAMPLE = 256
"""texts whose time tells that of all"""
_SURE = 0.85
"""of the time that is left: what the machine may slow down by"""


@dataclass(frozen=True)
class Rows:
    """Training texts with their class numbers, and test texts alone."""

    texts: list[str]
    labels: np.ndarray
    """Shape: (rows,)"""
    test: list[str]
    classes: int


@dataclass(frozen=True)
class Options:
    """What a contestant may use.

    ends
        `time.time()` by which it should have answered.
    static
        A folder of static embeddings, None where none are at hand.
    """

    base: str
    ends: float
    seed: int
    static: str | None = None

    def left_s(self) -> float:
        """Seconds of the clock that are left."""
        return self.ends - time.time()


@dataclass(frozen=True)
class Peer:
    """A contestant.

    answer
        Class numbers of the test texts, and notes on what it did.
    seeded
        Whether another seed may answer otherwise.
    """

    title: str
    answer: Callable[[Rows, Options], tuple[np.ndarray, list[str]]]
    packages: tuple[str, ...] = ()
    needs_static: bool = False
    seeded: bool = True

    def missing(self, static: str | None) -> str | None:
        """Why it cannot run here; None when it can."""
        absent = [name for name in self.packages if find_spec(name) is None]
        if absent:
            return f"it needs {', '.join(absent)}: pip install {' '.join(absent)}"
        if self.needs_static and static is None:
            return "no static embeddings are at hand: name their folder with --static"
        return None


def tfidf(rows: Rows, options: Options) -> tuple[np.ndarray, list[str]]:
    """TF-IDF of words and pairs of words, C by three folds."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    return _regression(words.fit_transform(rows.texts), rows.labels, words.transform(rows.test), (1, 10))


def frozen_mean(rows: Rows, options: Options) -> tuple[np.ndarray, list[str]]:
    """The base's tokens averaged and brought to length one, C by three folds."""
    train, test = (_mean_features(options.base, texts) for texts in (rows.texts, rows.test))
    return _regression(train, rows.labels, test, (1, 10, 100))


def static(rows: Rows, options: Options) -> tuple[np.ndarray, list[str]]:
    """model2vec's own classifier: static vectors and a small head, both trained."""
    from model2vec.train import StaticModelForClassification

    model = StaticModelForClassification.from_pretrained(path=options.static)
    model.fit(rows.texts, [str(label) for label in rows.labels])
    return np.array([int(label) for label in model.predict(rows.test)]), []


def setfit(rows: Rows, options: Options) -> tuple[np.ndarray, list[str]]:
    """SetFit's own Trainer at its defaults, with as many of its pairs as the clock has time for."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    model = SetFitModel.from_pretrained(options.base)
    model.model_body.max_seq_length = LENGTH
    embed_s = _seconds_a_text(lambda texts: model.model_body.encode(texts, show_progress_bar=False), rows.texts)
    # The head is fitted on every row's embedding, then the test texts are embedded: kept back with the head's own time.
    reserve = 1.3 * embed_s * (len(rows.texts) + len(rows.test)) + 5
    step_s = _seconds_a_pair_step(model.model_body, rows.texts)
    steps = max(1, int(_SURE * (options.left_s() - reserve) / step_s))
    arguments = TrainingArguments(max_steps=steps, seed=options.seed, report_to="none", show_progress_bar=False)
    arguments.save_strategy = "no"
    pairs = Dataset.from_dict({"text": rows.texts, "label": rows.labels.tolist()})
    trainer = Trainer(model=model, args=arguments, train_dataset=pairs, callbacks=[_stop_at(options.ends - reserve)])
    trainer.train()
    predicted = np.asarray(model.predict(rows.test, show_progress_bar=False)).astype(np.int64)
    return predicted, [f"{steps:,} steps of {arguments.embedding_batch_size} pairs fitted the clock"]


def peft_trainer(rows: Rows, options: Options) -> tuple[np.ndarray, list[str]]:
    """PEFT's LoRA and the Trainer, both at their defaults: three epochs, or as much of them as the clock has time for."""
    import tempfile

    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = AutoModelForSequenceClassification.from_pretrained(options.base, num_labels=rows.classes)
    model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS"))

    def dataset(texts: Sequence[str], labels: Sequence[int] | None = None) -> Any:
        columns = dict(tokenizer(list(texts), truncation=True, max_length=LENGTH))
        return Dataset.from_dict(columns | ({} if labels is None else {"labels": labels}))

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, report_to="none", save_strategy="no", disable_tqdm=True, seed=options.seed
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=dataset(rows.texts, rows.labels.tolist()),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        some = dataset(rows.test[:_SAMPLE])
        score_s = _seconds_a_text(lambda texts: trainer.predict(some.select(range(len(texts)))), rows.test)
        trainer.add_callback(_stop_at(options.ends - 1.3 * score_s * len(rows.test) - 2))
        trainer.train()
        logits = trainer.predict(dataset(rows.test)).predictions
    done, planned = trainer.state.global_step, trainer.state.max_steps
    cut = [f"the clock ended it after {done:,} of {planned:,} steps"] if done < planned else []
    return np.asarray(logits).argmax(1), cut


PEERS: dict[str, Peer] = {
    "tfidf": Peer("TF-IDF and logistic regression", tfidf, ("sklearn",), seeded=False),
    "frozen-mean": Peer("frozen mean and logistic regression", frozen_mean, ("sklearn",), seeded=False),
    "static": Peer("static embeddings, fine-tuned (model2vec)", static, ("model2vec",), needs_static=True),
    "setfit": Peer("SetFit's Trainer at its defaults", setfit, ("setfit",)),
    "peft": Peer("PEFT and the Trainer at their defaults", peft_trainer, ("datasets",)),
}


def read(train: str, test: str, words: Sequence[str] = ()) -> data.Roles:
    """The rows of a set, as `auto` reads them before it holds any out."""
    named = {f"data.{key}": value for key, value in (("train", train), ("test", test))}
    config = configuration.load(None, [*(f"{key}={value}" for key, value in named.items()), *words])
    roles = data.load(config.data, roles=("train", "test"), audit=False)
    if config.data.multi_label or roles.train.labels.ndim == 2:
        raise SystemExit(f"{train}: sets of several labels a text are not compared here")
    return roles


def _regression(train: Any, labels: np.ndarray, test: Any, strengths: Sequence[float]) -> tuple[np.ndarray, list[str]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    found = GridSearchCV(LogisticRegression(max_iter=300), {"C": list(strengths)}, cv=3).fit(train, labels)
    return np.asarray(found.predict(test)), [f"C {found.best_params_['C']:g}"]


def _mean_features(base: str, texts: Sequence[str]) -> np.ndarray:
    """Shape: (texts, hidden)"""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModel.from_pretrained(base).eval()
    order = np.argsort([len(text) for text in texts], kind="stable")
    rows = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(order), 64):
            here = order[start : start + 64]
            batch = tokenizer(
                [texts[row] for row in here], padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
            )
            hidden, mask = model(**batch).last_hidden_state.float(), batch["attention_mask"].unsqueeze(-1)
            means = (hidden * mask).sum(1) / mask.sum(1)
            rows[here] = torch.nn.functional.normalize(means, dim=-1).numpy()
    return rows


def _seconds_a_text(answer: Callable[[list[str]], Any], texts: Sequence[str]) -> float:
    """Of the second of two passes over a sample: the first one sets things up."""
    some = list(texts[:_SAMPLE])
    answer(some)
    started = time.perf_counter()
    answer(some)
    return (time.perf_counter() - started) / len(some)


def _seconds_a_pair_step(body: Any, texts: Sequence[str]) -> float:
    """Forward and backward of 16 pairs, with what the Trainer adds."""
    import torch

    def tokenised(start: int) -> Any:
        return body.tokenize(list(texts[start : start + 16]))

    times = []
    for turn in range(4):
        started = time.perf_counter()
        sides = [body(tokenised(32 * turn + side))["sentence_embedding"] for side in (0, 16)]
        torch.cosine_similarity(*sides).square().mean().backward()
        times.append(time.perf_counter() - started)
    body.zero_grad()
    return 1.3 * float(np.median(times[1:]))


def _stop_at(ends: float) -> Any:
    """A callback that ends training at a time."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            control.should_training_stop = control.should_training_stop or time.time() >= ends

    return Clock()


def main() -> None:
    """Answer the test texts, and write the answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("answers", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--base", default="packaged:all-MiniLM-L6-v2")
    parser.add_argument("--static")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="how the rows are read: data.text=..., data.label=..."
    )
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    roles = read(args.train, args.test, args.words)
    rows = Rows(roles.train.texts, roles.train.labels, roles.test.texts, len(roles.label_names))
    base = str(packaged.fetch(args.base)) if args.base.startswith("packaged:") else args.base
    options = Options(base, STARTED + 60 * args.minutes, args.seed, args.static)
    predicted, notes = PEERS[args.peer].answer(rows, options)
    args.answers.write_text(json.dumps({"predicted": predicted.astype(int).tolist(), "notes": notes}), encoding="utf-8")


if __name__ == "__main__":
    main()
