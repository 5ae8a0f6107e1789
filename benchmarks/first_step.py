"""Seconds from the command to the end of the first training step, on an otherwise idle machine.

python benchmarks/first_step.py --data ROWS.parquet

Every measurement is a process of its own, which does what its verb does and ends after one step; each verb's first makes the
token files that its others find. The first step of `auto` is the one by which it learns how fast the machine is.
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
from rankwise.training import optimizers

make = optimizers.optimizer


def ending(*given):
    made = make(*given)
    step = type(made).step

    def last(self, *more):
        step(self, *more)
        os._exit(42)

    type(made).step = last
    return made


optimizers.optimizer = ending

from rankwise.cli import main

sys.exit(main(sys.argv[1:]))
"""
VERBS = ("train", "auto", "search")
SEARCH = """
base:
  model: {{name: "{model}"}}
  data: {{train: "{data}"}}
  train: {{steps: 100}}
axes:
  train.learning_rate: [5.0e-4, 1.0e-3]
"""


def main() -> None:
    """Time the first step with and without token files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="labelled texts: a file, or packaged:bbc-news")
    parser.add_argument("--model", default="packaged:all-MiniLM-L6-v2")
    parser.add_argument("--times", type=int, default=4)
    args = parser.parse_args()
    verbs = {}
    for verb in VERBS:
        with tempfile.TemporaryDirectory() as folder:
            # Token files of its own; models, tokenizers and compiled kernels are where they are.
            (Path(folder) / "cache").mkdir()
            for name in ("packaged", "tokenizers", "native"):
                (Path(folder) / "cache" / name).symlink_to(caches.cache(name))
            words = words_of(verb, args.data, args.model, Path(folder))
            seconds = [one_step([*words, "--out", f"{folder}/{number}"], Path(folder)) for number in range(args.times)]
        verbs[verb] = {
            "without_token_files_s": round(seconds[0], 2),
            "with_token_files_s": [round(value, 2) for value in seconds[1:]],
            "median_s": round(median(seconds[1:]), 2),
        }
    setting = {"model": args.model, "data": Path(args.data).name}
    files.write_json(RESULT, {**setting, "verbs": verbs, "environment": describe().to_dict()})
    print(RESULT.read_text(encoding="utf-8"))


def words_of(verb: str, data: str, model: str, folder: Path) -> list[str]:
    """A command's words but for where it writes."""
    if verb == "train":
        return ["train", f"model.name={model}", f"data.train={data}", "budget.max_trainable=250k"]
    if verb == "auto":
        return ["auto", data, f"model.name={model}"]
    search = folder / "search.yaml"
    search.write_text(SEARCH.format(model=model, data=data), encoding="utf-8")
    return ["search", str(search)]


def one_step(words: list[str], folder: Path) -> float:
    """One command's seconds."""
    environment = {**os.environ, "RANKWISE_CACHE": str(folder / "cache")}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", ONE_STEP, *words], capture_output=True, text=True, env=environment)
    if done.returncode != 42:
        raise SystemExit(f"no step was made:\n{done.stderr}")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
