"""Twenty classifiers on one base: memory beside one of them, and the speed of texts for all of them mixed.

python benchmarks/many.py --tables TREC.parquet EMOTION.parquet SMS.parquet BANKING.parquet

Every measurement is a process of its own. Memory is what is resident once each classifier has answered, mapped files counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from twenty import texts_of, trained

from rankwise import files
from rankwise.inference.many import load_many
from rankwise.machine import description

RESULT = Path(__file__).parent / "results" / "many.json"
TEXTS = 2000
ROUNDS = 5


def main() -> None:
    """Measure one and twenty, in both precisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tables", nargs="+", type=Path, required=True, help="Parquet files, the one of most labels last"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/twenty"))
    parser.add_argument("--measure", nargs=2, metavar=("COUNT", "PRECISION"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measured(args, int(args.measure[0]), args.measure[1])))
        return
    trained(args.folder, args.tables)
    result: dict[str, Any] = {"texts": TEXTS}
    for precision in ("bf16", "fp32"):
        one, all_of_them = (again(count, precision) for count in (1, 20))
        result[precision] = {
            "one": one,
            "twenty": all_of_them,
            "more_mb": round(all_of_them["memory_mb"] - one["memory_mb"], 1),
            "mixed_of_one": round(all_of_them["mixed_texts_per_s"] / one["mixed_texts_per_s"], 3),
        }
        print(precision, result[precision], flush=True)
    files.write_json(RESULT, result | {"environment": description.describe().to_dict()})


def again(count: int, precision: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, *sys.argv, "--measure", str(count), precision]
    told: dict[str, Any] = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1]
    )
    return told


def measured(args: argparse.Namespace, count: int, precision: str) -> dict[str, Any]:
    """The first so many classifiers: memory, and texts a second, each text for another of them."""
    runs = dict(list(trained(args.folder, args.tables).items())[:count])
    texts = texts_of(args.tables[-1])[:TEXTS]
    many = load_many(runs, precision=precision)
    names = [list(runs)[number % count] for number in range(len(texts))]
    for name in runs:
        many.logits(texts[:8], [name])
    memory = resident_mb()
    many.mixed(texts, names)
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        many.mixed(texts, names)
        seconds.append(time.perf_counter() - started)
    return {"memory_mb": memory, "mixed_texts_per_s": round(len(texts) / float(np.median(seconds)), 1)}


def resident_mb() -> float:
    """Of this process, what is its own and what is mapped."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(float(line.split()[1]) / 1e3, 1)
    return float("nan")


if __name__ == "__main__":
    main()
