"""`auto` beside the recipes on the same model and rows, paired on the test rows.

python benchmarks/search_auto.py --train TRAIN.parquet --test TEST.parquet --minutes 15

The recipes' hits and misses are read from the result files of `reproduction.py`, run before on the same rows. Started
again when its own file is there, it only compares again: recipes may be added later.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rankwise import files, recipes
from rankwise.runs.folder import open_run
from rankwise.scoring import paired, predictions
from rankwise.search.auto import auto

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run auto, then compare it with every recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="ag_news", help="of the result file")
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", help="test rows; else give data.test_size=N among the words")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--recipes", type=Path, default=RESULTS / "reproduction", help="result files of the recipes")
    parser.add_argument("--pattern", default="all-MiniLM-L6-v2-*.json", help="of the recipes' result files")
    parser.add_argument("--out", type=Path, default=Path("runs/search-auto"))
    parser.add_argument("words", nargs="*", metavar="key=value")
    args = parser.parse_args()
    target = RESULTS / f"search_auto_{args.name}.json"
    measured = files.read_json(target) if target.exists() else measure(args)
    results = [files.read_json(path) for path in sorted(args.recipes.glob(args.pattern))]
    measured["recipes"] = [against(result, measured) for result in results if recipes.path(result["recipe"])]
    files.write_json(target, measured)
    for row in measured["recipes"]:
        print(row)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run auto and gather what it did."""
    words = [*args.words, *([f"data.test={args.test}"] if args.test else [])]
    started = time.time()
    record = auto(args.train, words, max_minutes=args.minutes, out=args.out / args.name)
    seconds = time.time() - started
    run = open_run(args.out / args.name)
    scored = predictions.read(run.path, "test")
    return {
        "minutes_allowed": args.minutes,
        "minutes_taken": round(seconds / 60, 3),
        "over_the_clock": round(seconds / 60 / args.minutes - 1, 4),
        "winner": record["winner"],
        "explanation": record["auto"]["explanation"][1:],
        "schedule": record["auto"]["schedule"],
        "speed": record["auto"]["speed"],
        "environment": run.result["environment"],
        "test_sha256": scored.rows_sha256,
        "hits": np.packbits(scored.correct).tobytes().hex(),
    }


def against(recipe: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's test accuracy, and the paired difference of auto from it."""
    if recipe["data"]["test"]["sha256"] != measured["test_sha256"]:
        return {"recipe": recipe["recipe"], "note": "scored on other rows"}
    count = recipe["test"]["examples"]
    pair = paired.compare_all(
        np.stack([hits(recipe["hits"], count), hits(measured["hits"], count)]), [recipe["recipe"], "auto"]
    )[0]
    return {
        "recipe": recipe["recipe"],
        "accuracy": recipe["test"]["accuracy"],
        "minutes": recipe["minutes"],
        "points": pair.points,
        "points_ci95": pair.points_ci95,
        "p": pair.p,
    }


def hits(packed: str, count: int) -> np.ndarray:
    """Which test rows are right. Shape: (rows,)"""
    return np.unpackbits(np.frombuffer(bytes.fromhex(packed), dtype=np.uint8), count=count).astype(bool)


if __name__ == "__main__":
    main()
