"""What adapters in the upper third of the layers alone cost in accuracy, on the same test rows.

python benchmarks/upper_third.py --set trec6 TRAIN.parquet TEST.parquet --set emotion TRAIN.parquet TEST.parquet

With them twenty answers of one text cost little more than one. Each seed is trained three times for as many steps: adapters
in all layers, in the upper third at the same rank, and there at three times the rank, about as many parameters.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from reproduction import trained_and_scored

import rankwise
from rankwise import files
from rankwise.machine import description
from rankwise.scoring import paired, predictions

RESULT = Path(__file__).parent / "results" / "upper_third.json"
RANK = 8


def main() -> None:
    """Train every set, seed and design, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--set", dest="sets", nargs=3, action="append", metavar=("NAME", "TRAIN", "TEST"), required=True
    )
    parser.add_argument("--model", default="packaged:all-MiniLM-L6-v2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--runs", type=Path, default=Path("runs/upper_third"))
    args = parser.parse_args()
    designs = designs_of(args.model)
    result: dict[str, Any] = {"model": args.model, "steps": args.steps, "designs": designs, "sets": {}}
    for name, train, test in args.sets:
        result["sets"][name] = compared(name, train, test, designs, args)
        files.write_json(RESULT, result | {"environment": description.describe().to_dict()})
        print(name, {key: value for key, value in result["sets"][name].items() if key != "seeds"}, flush=True)


def designs_of(model: str) -> dict[str, dict[str, Any]]:
    """The adapters by name: layers and rank."""
    plan = rankwise.plan({"model": {"name": model}, "data": {"num_labels": 2}})
    layers = plan.encoder.layers
    upper = list(range(layers - layers // 3, layers))
    return {
        "all layers": {"layers": list(range(layers)), "rank": RANK},
        "upper third": {"layers": upper, "rank": RANK},
        "upper third, rank x 3": {"layers": upper, "rank": 3 * RANK},
    }


def compared(
    name: str, train: str, test: str, designs: dict[str, dict[str, Any]], args: argparse.Namespace
) -> dict[str, Any]:
    """Accuracies of each design and seed, and how far the upper third is from all layers, paired."""
    seeds = []
    for seed in args.seeds:
        told: dict[str, Any] = {"seed": seed, "accuracy": {}, "trainable": {}}
        hits = []
        for design, adapter in designs.items():
            words = [
                f"model.name={args.model}",
                f"data.train={train}",
                f"data.test={test}",
                "data.validation_size=0.1",
                "adapter.scope=all",
                f"adapter.layers={adapter['layers']}",
                f"adapter.rank={adapter['rank']}",
                "adapter.alpha=2r",
                "adapter.dropout=0.1",
                "budget.max_trainable=null",
                "train.learning_rate=1e-3",
                f"train.steps={args.steps}",
                f"train.eval_every={max(1, args.steps // 5)}",
                "train.batch_size=16",
                f"train.seed={seed}",
            ]
            run = trained_and_scored(
                {}, words, args.runs / f"{name}-{design.replace(' ', '-').replace(',', '')}-{seed}"
            )
            hits.append(predictions.read(run.path, "test").correct)
            told["accuracy"][design] = run.result["metrics"]["test"]["accuracy"]
            told["trainable"][design] = run.result["parameters"]["trainable"]
        told["against all layers"] = {
            design: difference(hits[0], other) for design, other in zip(list(designs)[1:], hits[1:], strict=True)
        }
        seeds.append(told)
    return {
        "rows": len(hits[0]),
        "accuracy": {design: fmean(one["accuracy"][design] for one in seeds) for design in designs},
        "points": {
            design: fmean(one["against all layers"][design]["points"] for one in seeds) for design in list(designs)[1:]
        },
        "seeds": seeds,
    }


def difference(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Points of accuracy that the second has more, on the same rows, with a paired interval and McNemar's p."""
    pair = paired.compare_all(np.stack([after, before]), ("upper", "all"))[0]
    return {"points": pair.points, "points_ci95": list(pair.points_ci95), "p": pair.p}


if __name__ == "__main__":
    main()
