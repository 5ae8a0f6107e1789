"""What adapters in the upper third of the layers alone cost in accuracy, on the same test rows.

python benchmarks/upper_third.py --set trec6 TRAIN.parquet TEST.parquet --set emotion TRAIN.parquet TEST.parquet

With them twenty answers of one text cost little more than one. Each seed is trained three times for as many steps: adapters
in all layers, in the upper third at the same rank, and there at three times the rank, about as many parameters.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Cells, add_arguments
from reproduction import trained_and_scored

import rankwise
from rankwise.runs.folder import Run
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
    add_arguments(parser)
    args = parser.parse_args()
    designs = designs_of(args.model)
    cells = Cells(RESULT, args, model=args.model, steps=args.steps, designs=designs)
    for seed in args.seeds:
        for name, train, test in args.sets:
            runs = {}
            for design, adapter in designs.items():
                folder = args.runs / f"{name}-{design.replace(' ', '-').replace(',', '')}-{seed}"
                words = words_of(args.model, train, test, adapter, args.steps, seed)
                told = cells.measure(
                    f"{name}, seed {seed}, {design}",
                    lambda words=words, folder=folder: scored(trained_and_scored({}, words, folder)),  # type: ignore[misc]
                )
                if told:
                    runs[design] = folder
            if len(runs) == len(designs):
                cells.measure(f"{name}, seed {seed}, paired", lambda runs=runs: compared(runs))  # type: ignore[misc]


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


def words_of(model: str, train: str, test: str, adapter: dict[str, Any], steps: int, seed: int) -> list[str]:
    """The configuration of a run."""
    return [
        f"model.name={model}",
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
        f"train.steps={steps}",
        f"train.eval_every={max(1, steps // 5)}",
        "train.batch_size=16",
        f"train.seed={seed}",
    ]


def scored(run: Run) -> Cell:
    """Its parameters and its score of the test rows."""
    test = run.result["metrics"]["test"]
    return {"trainable": run.result["parameters"]["trainable"], **{key: test[key] for key in ("examples", "accuracy")}}


def compared(runs: dict[str, Path]) -> Cell:
    """How far the others are from the first design, on the same rows."""
    hits = {design: predictions.read(folder, "test").correct for design, folder in runs.items()}
    first, *others = hits
    return {design: difference(hits[first], hits[design]) for design in others}


def difference(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Points of accuracy that the second has more, on the same rows, with a paired interval and McNemar's p."""
    pair = paired.compare_all(np.stack([after, before]), ("upper", "all"))[0]
    return {"points": pair.points, "points_ci95": list(pair.points_ci95), "p": pair.p}


if __name__ == "__main__":
    main()
