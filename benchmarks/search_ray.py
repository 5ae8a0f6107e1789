"""Twelve trials on one Ray worker of one thread, and on two.

python benchmarks/search_ray.py
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from rankwise import files
from rankwise.search.driver import search
from rankwise.search.sweep.ray_workers import RayWorkers, connect
from rankwise.search.sweep.spec import Resources

RESULT = Path(__file__).parent / "results" / "search_ray.json"


def main() -> None:
    """Run the search on each cluster and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--runs", type=Path, default=Path("runs/search-ray"))
    parser.add_argument("words", nargs="*", metavar="key=value", help="overrides of the sweep's base")
    args = parser.parse_args()
    words = [
        *args.words,
        "halving=null",
        "seeds=1",
        "strategy.trials=12",
        f"train.steps={args.steps}",
        "train.eval_every=30",
    ]
    seconds, tables = {}, {}
    # What only the first search of a process pays for, imports, rows and token files, is paid for before the clock runs.
    search("scope-sweep", [*words, "strategy.trials=1", "train.steps=2", "train.eval_every=2"], out=args.runs / "warm")
    for count in (1, 2):
        ray = connect("local", num_cpus=count)
        workers = RayWorkers("local", Resources(cpus=1))
        started = time.time()
        record = search("scope-sweep", words, out=args.runs / str(count), workers=workers)
        seconds[count], tables[count] = time.time() - started, record["table"]
        ray.shutdown()
    files.write_json(
        RESULT,
        {
            "trials": 12,
            "steps": args.steps,
            "overrides": args.words,
            "seconds": {str(count): round(taken, 1) for count, taken in seconds.items()},
            "speedup": round(seconds[1] / seconds[2], 3),
            "tables_equal": tables[1] == tables[2],
            "cores": os.cpu_count(),
        },
    )
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
