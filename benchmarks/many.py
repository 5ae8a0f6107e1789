"""Twenty classifiers on one base: memory beside one of them, the speed of texts for all of them mixed, and all twenty answers
of one text.

python benchmarks/many.py --tables TREC.parquet EMOTION.parquet SMS.parquet BANKING.parquet

Every measurement is a process of its own. Memory is what is resident once each classifier has answered, mapped files counted.
Answers of one text are those of classifiers in all layers, and of twenty others that change the upper third alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Cells, add_arguments
from twenty import MODEL, texts_of, trained

import rankwise
from rankwise.inference.many import load_many

RESULT = Path(__file__).parent / "results" / "many.json"
TEXTS = 2000
ROUNDS = 5
SINGLES = 200
PARTS = ("all layers", "upper third")


def main() -> None:
    """Measure one and twenty, in both precisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tables", nargs="+", type=Path, required=True, help="Parquet files, the one of most labels last"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/twenty"))
    parser.add_argument("--prepare", action="store_true", help="train, then stop")
    parser.add_argument("--measure", nargs=3, metavar=("COUNT", "PRECISION", "PART"), help=argparse.SUPPRESS)
    add_arguments(parser)
    args = parser.parse_args()
    if args.measure:
        count, precision, part = args.measure
        print(json.dumps(measured(args, int(count), precision, part)))
        return
    for part in PARTS:
        classifiers(args, part)
    if args.prepare:
        return
    cells = Cells(RESULT, args, texts=TEXTS)
    for precision in ("bf16", "fp32"):
        for part in PARTS:
            for count in (1, 20):
                cells.measure(
                    f"{precision}, {part}, {count}",
                    lambda count=count, precision=precision, part=part: again(count, precision, part),  # type: ignore[misc]
                )


def again(count: int, precision: str, part: str) -> Cell:
    """One measurement in a process of its own."""
    command = [sys.executable, *sys.argv, "--measure", str(count), precision, part]
    told: Cell = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
    return told


def classifiers(args: argparse.Namespace, part: str) -> dict[str, Path]:
    """Twenty runs by name, trained where they are not there yet."""
    if part == PARTS[0]:
        return trained(args.folder, args.tables)
    layers = rankwise.plan({"model": {"name": MODEL}, "data": {"num_labels": 2}}).encoder.layers
    upper = list(range(layers - layers // 3, layers))
    return trained(args.folder.with_name(f"{args.folder.name}-upper"), args.tables, layers=upper)


def measured(args: argparse.Namespace, count: int, precision: str, part: str) -> Cell:
    """The first so many classifiers: memory, texts a second, each text for another of them, and all answers of one text."""
    runs = dict(list(classifiers(args, part).items())[:count])
    texts = texts_of(args.tables[-1])[:TEXTS]
    many = load_many(runs, precision=precision)
    names = [list(runs)[number % count] for number in range(len(texts))]
    for name in runs:
        many.logits(texts[:8], [name])
    memory = resident_mb()
    many.mixed(texts, names)
    seconds = [timed(lambda: many.mixed(texts, names)) for _ in range(ROUNDS)]
    one = [1000 * timed(lambda text=text: many.logits([text])) for text in texts[:SINGLES]]  # type: ignore[misc]
    return {
        "memory_mb": memory,
        "mixed_texts_per_s": round(len(texts) / float(np.median(seconds)), 1),
        **{f"one_text_p{share}_ms": round(float(np.percentile(one, share)), 2) for share in (50, 99)},
    }


def timed(run: Callable[[], Any]) -> float:
    """Its seconds."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def resident_mb() -> float:
    """Of this process, what is its own and what is mapped."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(float(line.split()[1]) / 1e3, 1)
    return float("nan")


if __name__ == "__main__":
    main()
