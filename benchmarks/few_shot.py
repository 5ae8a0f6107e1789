"""`auto` on so many rows a class: draws from training rows, every one scored once on all test rows.

python benchmarks/few_shot.py --train TRAIN.parquet --test TEST.parquet --per-class 8 --draws 10 --minutes 1

Every draw is a command of its own, so its seconds are those of a user who types it. A draw that stands in the result file
is not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankwise import evaluate, files
from rankwise.machine import description

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the draws that are missing, then print mean, deviation and seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="ag_news", help="of the result file")
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--label", default="label", help="the label column")
    parser.add_argument("--per-class", type=int, default=8)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument(
        "--first", type=int, default=0, help="the first draw's seed: others than those looked at before"
    )
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--model", default="packaged:all-MiniLM-L6-v2", help="auto: those that compete by default")
    args = parser.parse_args()
    short = args.model.rstrip("/").rpartition("/")[2].removeprefix("packaged:")
    draws_of = f"-from-{args.first}" if args.first else ""
    target = RESULTS / f"few_shot_{args.name}_{args.per_class}_{short}{draws_of}.json"
    known = files.read_json(target) if target.exists() else {}
    draws = {draw["seed"]: draw for draw in known.get("draws", [])}
    table = pq.read_table(args.train)
    for seed in range(args.first, args.first + args.draws):
        if seed not in draws:
            draws[seed] = {"seed": seed, **measured(table.take(drawn(table, args.label, args.per_class, seed)), args)}
            print(draws[seed], flush=True)
        files.write_json(target, summary(args, [draws[seed] for seed in sorted(draws)]))
    print({key: value for key, value in files.read_json(target).items() if key != "draws"})


def drawn(table: Any, label: str, per_class: int, seed: int) -> np.ndarray:
    """Rows of a draw, so many of every class."""
    generator, labels = np.random.default_rng(seed), np.array(table.column(label).to_pylist())
    rows = [generator.choice(np.flatnonzero(labels == name), per_class, replace=False) for name in np.unique(labels)]
    return np.concatenate(rows)


def measured(rows: pa.Table, args: argparse.Namespace) -> dict[str, Any]:
    """`rankwise auto` on these rows: test accuracy, the design and the seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(rows, f"{folder}/rows.parquet")
        words = [f"{folder}/rows.parquet", f"data.test={args.test}", "--json"]
        words += [] if args.model == "auto" else [f"model.name={args.model}"]
        command = [sys.executable, "-m", "rankwise", "auto", *words, "--out", f"{folder}/auto"]
        started = time.time()
        ended = subprocess.run([*command, "--max-minutes", str(args.minutes)], capture_output=True, text=True)
        seconds = time.time() - started
        if ended.returncode:
            raise SystemExit(ended.stderr)
        record = json.loads(ended.stdout)
        test = record["winner"]["test"]
        if "drawn_from" in test:  # the clock had no time for all test rows
            test = evaluate(f"{folder}/auto/{record['winner']['run']}")
    winner, base = record["winner"], [line for line in record["auto"]["explanation"] if line.startswith("base ")]
    folds = record["auto"].get("folds") or []  # none where rows are held out
    return {
        "accuracy": test["accuracy"],
        "seconds": round(seconds, 1),
        "design": winner["point"]["design"],
        "bases": base,
        "steps": next((one.get("steps") for one in folds if one["design"] == winner["point"]["design"]), None),
        "by_folds": {one["design"]: round(one["accuracy"], 4) for one in folds},
        "trainable": winner["trainable"],
    }


def summary(args: argparse.Namespace, draws: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation over the draws, and the draws."""
    accuracies, seconds = [draw["accuracy"] for draw in draws], [draw["seconds"] for draw in draws]
    return {
        "per_class": args.per_class,
        "model": args.model,
        "minutes": args.minutes,
        "mean": round(float(np.mean(accuracies)), 4),
        "sd": round(float(np.std(accuracies, ddof=1)), 4) if len(draws) > 1 else None,
        "seconds": {"median": float(np.median(seconds)), "most": max(seconds)},
        "environment": description.describe().to_dict(),
        "draws": draws,
    }


if __name__ == "__main__":
    main()
