"""Your own CSV to a classifier, a report and predictions: `python examples/own_csv.py mine.csv`.

The file needs a text and a label column; other names go on the command line: --text review --label stars.
"""

from __future__ import annotations

import argparse

import rankwise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", help="labelled texts")
    parser.add_argument("--text", default="text", help="text column (default: text)")
    parser.add_argument("--label", default="label", help="label column (default: label)")
    parser.add_argument(
        "--model", default="packaged:all-MiniLM-L6-v2", help="encoder: a Hub name, a folder, packaged:..."
    )
    parser.add_argument("--max-trainable", default="250k", help="trainable parameters allowed (default: 250k)")
    parser.add_argument("--out", default="runs/own", help="the run's folder (default: runs/own)")
    parser.add_argument("overrides", nargs="*", help="any configuration key: train.epochs=5")
    args = parser.parse_intermixed_args()

    config = {
        "budget": {"max_trainable": args.max_trainable},
        "model": {"name": args.model},
        "adapter": {"scope": ["query", "key", "value", "attention_output"], "rank": "max"},
        "data": {"train": args.csv, "text": args.text, "label": args.label, "test_size": 0.2, "drop_duplicates": True},
        "train": {"learning_rate": 1e-3, "warmup_ratio": 0.1, "epochs": 3},
    }
    run = rankwise.train(config, args.overrides, out=args.out)
    scores = rankwise.evaluate(run)
    low, high = scores["accuracy_ci95"]
    print(f"test accuracy {scores['accuracy']:.3f}, 95% interval {low:.3f} to {high:.3f}, {scores['examples']} rows")
    print(f"report: {rankwise.report(run)}")


if __name__ == "__main__":
    main()
