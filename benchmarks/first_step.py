"""Seconds from the command to the end of the first training step, on an otherwise idle machine.

python benchmarks/first_step.py --data ROWS.parquet

Every measurement is a process of its own, which trains as `rankwise train` does and ends after one step; the first makes the
token files that the others find.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rankwise import files
from rankwise.machine import caches
from rankwise.machine.description import describe

RESULT = Path(__file__).parent / "results" / "first_step.json"
ONE_STEP = """
import os
import sys
from rankwise.cli import main
from rankwise.training.loop import Loop

step = Loop._train_step


def first(self):
    step(self)
    os._exit(42)


Loop._train_step = first
main(sys.argv[1:])
"""


def main() -> None:
    """Time the first step with and without token files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labelled texts: a file, or packaged:bbc-news")
    parser.add_argument("--model", default="packaged:all-MiniLM-L6-v2")
    parser.add_argument("--times", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Token files of its own; models are where they are.
        (Path(folder) / "cache").mkdir()
        (Path(folder) / "cache" / "packaged").symlink_to(caches.cache("packaged"))
        seconds = [one_step(args.data, args.model, Path(folder), number) for number in range(args.times)]
    files.write_json(
        RESULT,
        {
            "model": args.model,
            "data": Path(args.data).name,
            "without_token_files_s": round(seconds[0], 2),
            "with_token_files_s": [round(value, 2) for value in seconds[1:]],
            "median_s": round(median(seconds[1:]), 2),
            "environment": describe().to_dict(),
        },
    )
    print(RESULT.read_text(encoding="utf-8"))


def one_step(data: str, model: str, folder: Path, number: int) -> float:
    """One command's seconds."""
    words = [
        "train",
        f"model.name={model}",
        f"data.train={data}",
        "budget.max_trainable=250k",
        "--out",
        f"{folder}/{number}",
    ]
    environment = {**os.environ, "RANKWISE_CACHE": str(folder / "cache")}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", ONE_STEP, *words], capture_output=True, text=True, env=environment)
    if done.returncode != 42:
        raise SystemExit(f"no step was made:\n{done.stderr}")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
