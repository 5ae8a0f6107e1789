"""The fast engine beside transformers and peft: one training on both paths, several seeds; started again, it goes on.

python benchmarks/paths.py --train TRAIN.parquet --test TEST.parquet

The paths draw different dropout masks and round differently, so two runs of one seed differ as two seeds do. What is
asked is whether the accuracies do, on the same test rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from reproduction import trained_and_scored

from rankwise import files
from rankwise.machine import description
from rankwise.scoring import paired, predictions

RESULT = Path(__file__).parent / "results" / "paths.json"
ENGINES = ("fast", "reference")


def main() -> None:
    """Train every seed on both paths and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="labelled texts to train on")
    parser.add_argument("--test", required=True, help="labelled texts to be scored")
    parser.add_argument("--model", default="packaged:all-MiniLM-L6-v2")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--runs", type=Path, default=Path("runs/paths"))
    args = parser.parse_args()
    words = [
        f"model.name={args.model}",
        f"data.train={args.train}",
        f"data.test={args.test}",
        "data.validation_size=640",
        "adapter.scope=[query, value]",
        "adapter.rank=8",
        "adapter.alpha=16",
        "adapter.dropout=0.1",
        "train.learning_rate=1e-3",
        f"train.steps={args.steps}",
        f"train.eval_every={args.steps}",
        "train.batch_size=16",
    ]
    seeds = []
    for seed in args.seeds:
        seeds.append(one_seed(seed, words, args.runs))
        files.write_json(RESULT, summary(seeds, args))
        print(seeds[-1], flush=True)


def one_seed(seed: int, words: list[str], folder: Path) -> dict[str, Any]:
    """Both paths' test accuracy, and the paired test of their difference."""
    found: dict[str, Any] = {"seed": seed}
    hits = []
    for engine in ENGINES:
        run = trained_and_scored({}, [*words, f"engine={engine}", f"train.seed={seed}"], folder / f"{engine}-{seed}")
        hits.append(predictions.read(run.path, "test").correct)
        found[engine] = {
            "accuracy": run.result["metrics"]["test"]["accuracy"],
            "loss": run.result["metrics"]["test"]["loss"],
            "minutes": round(run.result["timing"]["train_s"] / 60, 2),
        }
    pair = paired.compare_all(np.stack(hits), ENGINES)[0]
    return found | {"points": pair.points, "points_ci95": list(pair.points_ci95), "p": pair.p}


def summary(seeds: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """Means over seeds, and the difference with its interval (Student's t over seeds)."""
    from scipy.stats import t

    apart = [100 * (row["reference"]["accuracy"] - row["fast"]["accuracy"]) for row in seeds]
    half = t.ppf(0.975, len(apart) - 1) * stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else None
    return {
        "what": "test accuracy of one training on the fast engine and on transformers with peft",
        "model": args.model,
        "steps": args.steps,
        "mean": {engine: fmean(row[engine]["accuracy"] for row in seeds) for engine in ENGINES},
        "points": fmean(apart),
        "points_ci95": None if half is None else [fmean(apart) - half, fmean(apart) + half],
        "seeds": seeds,
        "environment": description.describe().to_dict(),
    }


if __name__ == "__main__":
    main()
