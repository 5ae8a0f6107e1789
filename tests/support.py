"""What tests of several folders make: labelled sentences and files of them."""

import csv
import random
from pathlib import Path

import msgspec
import numpy as np

TOPICS = {
    "sport": ["match", "goal", "team", "coach", "league", "striker"],
    "business": ["shares", "bank", "profit", "market", "merger", "investor"],
    "science": ["planet", "cell", "telescope", "enzyme", "theory", "orbit"],
}
DEBERTA = {
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 8,
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
}
"""what is DeBERTa's own of a tiny model's configuration"""

COMMON = ["the", "a", "of", "on", "after", "said", "new", "with", "will", "and", "in", "."]


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """(text, topic) pairs that a two-layer model can learn."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        topic = list(TOPICS)[number % len(TOPICS)]
        words = chance.choices(COMMON, k=chance.randint(3, 12)) + chance.choices(TOPICS[topic], k=3)
        chance.shuffle(words)
        made.append((" ".join(words), topic))
    return made


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    """A CSV with columns text and label."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        table.writerows(rows)
    return path


def scores_of(accuracy: float, loss: float):
    """Scores of which nothing else matters."""
    from rankwise.records import Scores

    return Scores(examples=9, accuracy=accuracy, accuracy_ci95=(0.0, 1.0), loss=loss, macro_f1=accuracy, ece=0.0)


def run_search(tree, folder, **options):
    """A search without a line on the screen."""
    from rich.console import Console

    from rankwise.search.driver import search

    return search(tree, out=folder, console=Console(quiet=True), **options)


def pretend(task):
    """An outcome whose score peaks at a learning rate of 0.005, without training; predictions are the same for all."""
    import math

    from rankwise.scoring import predictions
    from rankwise.search.sweep.trial import Outcome

    distance = abs(math.log10(task.config["train"]["learning_rate"] / 5e-3))
    folder = Path(task.folder)
    folder.mkdir(parents=True)
    labels = np.zeros(4, dtype=int)
    predictions.write(
        folder, "validation", ["a", "b"], rows_sha256="x", ids=[0, 1, 2, 3], labels=labels,
        probabilities=np.full((4, 2), 0.5),
    )  # fmt: skip
    (folder / "config.yaml").write_text(msgspec.yaml.encode(task.config).decode())
    scores = {"accuracy": 1 - distance / 4, "loss": distance, "macro_f1": 0.5, "step": 12}
    return Outcome(task.number, "finished", 12, scores, (0.0, 1.0), 0.5, 0.5)
