"""Several labels a text, on a small generated set: `python examples/multi_label.py`.

Each text mixes the words of one to three topics and carries all of them as labels. Sigmoid instead of softmax, and a
report by label.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

import rankwise

TOPICS = {
    "weather": ["storm", "rain", "sunny", "forecast", "cloud", "wind"],
    "travel": ["train", "airport", "ticket", "hotel", "journey", "delay"],
    "food": ["recipe", "bread", "kitchen", "pepper", "dinner", "taste"],
    "music": ["guitar", "concert", "album", "singer", "melody", "drum"],
}
FILLER = ["the", "a", "on", "with", "after", "this", "was", "very", "and", "today"]


def write_set(path: Path, rows: int, seed: int) -> Path:
    """A CSV of texts with their labels in one cell, `|` between them."""
    chance = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for _ in range(rows):
            topics = sorted(chance.sample(sorted(TOPICS), chance.choice([1, 1, 2, 2, 3])))
            words = [word for topic in topics for word in chance.choices(TOPICS[topic], k=3)] + chance.choices(
                FILLER, k=6
            )
            chance.shuffle(words)
            table.writerow([" ".join(words), "|".join(topics)])
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", default="packaged:all-MiniLM-L6-v2", help="encoder: a Hub name, a folder, packaged:..."
    )
    parser.add_argument("--rows", type=int, default=1200, help="training rows to generate (default: 1200)")
    parser.add_argument("--out", default="runs/multi-label", help="the run's folder (default: runs/multi-label)")
    parser.add_argument("overrides", nargs="*", help="any configuration key: train.epochs=5")
    args = parser.parse_intermixed_args()

    folder = Path(args.out).parent
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "budget": {"max_trainable": 250_000},
        "model": {"name": args.model},
        "adapter": {"scope": ["query", "value"], "rank": 8},
        "data": {
            "train": str(write_set(folder / "mixed-train.csv", args.rows, seed=0)),
            "test": str(write_set(folder / "mixed-test.csv", max(50, args.rows // 4), seed=1)),
            "multi_label": True,
        },
        "train": {"learning_rate": 2e-3, "epochs": 3, "select": {"metric": "macro_f1"}},
    }
    run = rankwise.train(config, args.overrides, out=args.out)
    scores = rankwise.evaluate(run)
    print(f"micro F1 {scores['micro_f1']:.3f}; whole label sets right: {scores['accuracy']:.3f}")
    for label, row in scores["per_class"].items():
        print(f"  {label:<8} F1 {row['f1'] or 0:.3f} on {row['support']} rows")
    print(f"report: {rankwise.report(run)}")
    print(rankwise.load(run).predict(["the singer missed the train to the concert"]))


if __name__ == "__main__":
    main()
