"""Halving beside the full grid, on the shipped scope sweep, for several seeds; started again, it goes on.

python benchmarks/search_halving.py

The grid is run in full. What halving does is then read off the grid's own runs: a promoted trial is the same run as
one that was never stopped (a test holds that), so its loss at a rung is the grid run's there. Halving is the
sweep's own, or with `--halving factor=3 rungs=3` another, replayed on the same runs: what is tried so should be
tried on seeds that are not reported.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rankwise import files
from rankwise.runs.folder import Run
from rankwise.search.driver import search
from rankwise.search.sweep import spec
from rankwise.search.sweep.spec import Halving
from rankwise.search.sweep.strategies import in_turns, stops, survivors
from rankwise.search.sweep.workers import Processes

RESULT = Path(__file__).parent / "results" / "search_halving.json"


def main() -> None:
    """Run a grid a seed and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--halving", nargs="+", metavar="key=value", default=[], help="of halving, beside the sweep's own"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes for the grid")
    parser.add_argument("--runs", type=Path, default=Path("runs/search-halving"), help="where the grids' folders go")
    parser.add_argument("--result", type=Path, default=RESULT, help="where the numbers go")
    parser.add_argument("words", nargs="*", metavar="key=value", help="overrides of the sweep's base")
    args = parser.parse_args()
    halving = spec.load("scope-sweep", [f"halving.{word}" for word in args.halving]).halving
    assert halving is not None
    rows = []
    for seed in args.seeds:
        folder = args.runs / f"seed-{seed}"
        words = ["halving=null", "seeds=1", f"train.seed={seed}", *args.words]
        workers = Processes(args.workers) if args.workers > 1 else None
        record = search("scope-sweep", words, out=folder, resume=folder.exists(), workers=workers)
        rows.append({"seed": seed, **replay(record, folder, halving)})
        environment = Run(folder / record["winner"]["run"]).result["environment"]
        files.write_json(
            args.result,
            {
                "what": "validation accuracy of the configuration that halving ends with, beside the full grid's best",
                "halving": msgspec.to_builtins(halving),
                "overrides": args.words,
                "seeds": rows,
                "mean_loss_points": round(float(np.mean([row["points_below_grid"] for row in rows])), 3),
                "largest_loss_points": max(row["points_below_grid"] for row in rows),
                "environment": environment,
            },
        )
        print(rows[-1], flush=True)


def replay(record: dict[str, Any], folder: Path, halving: Halving) -> dict[str, Any]:
    """Successive halving over runs that all went to their end."""
    done = [trial for trial in record["trials"] if trial["status"] == "done"]
    histories = {trial["trial"]: Run(folder / trial["run"]).history for trial in done}
    points = {row["trial"]: row["point"] for row in record["table"]}
    total = done[0]["total_steps"]
    places = stops(total, int(histories[done[0]["trial"]][0]["step"] or 1), halving.rungs, halving)
    alive, steps, before = sorted(histories), 0, 0

    def best(number: int) -> tuple[float, float]:
        return max((row["validation_accuracy"] or 0.0, -(row["validation_loss"] or 0.0)) for row in histories[number])

    def loss(number: int, at: int) -> float:
        return next(row["validation_loss"] or 0.0 for row in histories[number] if row["step"] == at)

    for place in places[:-1]:
        steps += len(alive) * (place - before)
        ranked = sorted(alive, key=lambda number: (loss(number, place), number))
        if halving.within is not None:
            ranked = in_turns(ranked, lambda number: points[number][halving.within])
        alive, before = ranked[: survivors(len(ranked), halving)], place
    steps += len(alive) * (total - before)
    alive = sorted(alive, key=lambda number: (*(-value for value in best(number)), number))
    scores = {number: best(number)[0] for number in histories}
    return {
        "configurations": len(done),
        "grid_best": max(scores.values()),
        "halving_best": scores[alive[0]],
        "whole_runs": len(alive),
        "points_below_grid": round(100 * (max(scores.values()) - scores[alive[0]]), 3),
        "grid_steps": total * len(done),
        "halving_steps": steps,
        "share_of_steps": round(steps / (total * len(done)), 4),
        "grid_winner": points[record["winner"]["trial"]],
        "halving_winner": points[alive[0]],
    }


if __name__ == "__main__":
    main()
