"""Forecasts of minutes and memory beside what happened: `rankwise plan --measure`, then `rankwise train`, a process each.

python benchmarks/forecasts.py DIR [--cells NAME ...]

DIR holds a folder of train.parquet a set. A cell that is in the result's file is not run again; --cells names those to run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rankwise import files
from rankwise.machine import caches
from rankwise.machine.description import describe

RESULT = Path(__file__).parent / "results" / "forecasts.json"
MINILM, MPNET = "model.name=packaged:all-MiniLM-L6-v2", "model.name=packaged:all-mpnet-base-v2"
CELLS = {
    "trec6-lora-16": ("trec6", [MINILM, "adapter.scope=all", "train.steps=200"]),
    "trec6-lora-64": ("trec6", [MINILM, "adapter.scope=all", "train.steps=80", "train.batch_size=64"]),
    "emotion-query-value-16": ("emotion", [MINILM, "adapter.rank=8", "train.steps=250"]),
    "banking77-bitfit-16": ("banking77", [MINILM, "adapter.method=bitfit", "train.steps=60"]),
    "sms-probe": ("sms", [MINILM, "adapter.method=probe"]),
    "sst5-lora-fitted-16": ("sst5", [MINILM, "adapter.scope=all", "head.probe_first=true", "train.steps=150"]),
    "trec6-mpnet-16": ("trec6", [MPNET, "adapter.rank=8", "train.steps=60"]),
    "sst5-full-8": ("sst5", [MINILM, "adapter.method=full", "budget.max_trainable=null", "train.steps=60", "train.batch_size=8"]),
}  # fmt: skip


def main() -> None:
    """Measure and run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS))
    args = parser.parse_args()
    known: dict[str, Any] = files.read_json(RESULT)["cells"] if RESULT.is_file() else {}
    for name in args.cells:
        if name not in known:
            data, words = CELLS[name]
            known[name] = measured([*words, f"data.train={args.folder / data / 'train.parquet'}"])
            files.write_json(RESULT, {"environment": describe().to_dict(), "cells": known})
        print(line(name, known[name]), flush=True)
    for quantity, allowed in (("minutes", 0.15), ("peak_mb", 0.10)):
        errors = [abs(error(cell, quantity)) for cell in known.values()]
        within = sum(one <= allowed for one in errors)
        print(f"{quantity}: {within} of {len(errors)} within {allowed:.0%}, worst {max(errors):.0%}")


def measured(words: list[str]) -> dict[str, Any]:
    """A cell: the forecast, and the run."""
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "cache"
        own.mkdir()
        for kind in (
            "packaged",
            "native",
        ):  # tokens and features are the cell's own; models and kernels are where they are
            (own / kind).symlink_to(caches.cache(kind))
        environment = {**os.environ, "RANKWISE_CACHE": str(own)}
        plan = json.loads(answer(["plan", *words, "--measure", "--json"], environment))
        started = time.time()
        result = json.loads(answer(["train", *words, "--out", f"{folder}/run", "--json"], environment))
        minutes = (time.time() - started) / 60
    return {
        "forecast": plan["forecast"],
        "happened": {
            "minutes": round(minutes, 3),
            "peak_mb": result["memory"]["peak_mb"],
            "steps": result["timing"]["steps"],
            "train_s": result["timing"]["train_s"],
            "eval_s": result["timing"]["eval_s"],
        },
    }


def answer(words: list[str], environment: dict[str, str]) -> str:
    """What a command of rankwise prints."""
    command = [sys.executable, "-m", "rankwise", *words]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ).stdout


def error(cell: dict[str, Any], quantity: str) -> float:
    """How far the forecast was from what happened, as a share of it."""
    happened: float = cell["happened"][quantity]
    return float(cell["forecast"][quantity] / happened - 1)


def line(name: str, cell: dict[str, Any]) -> str:
    """A cell as a line of the table."""
    told, happened = cell["forecast"], cell["happened"]
    minutes = f"{told['minutes']:6.2f} minutes, {happened['minutes']:6.2f} ({error(cell, 'minutes'):+.0%})"
    memory = f"{told['peak_mb']:6.0f} MB, {happened['peak_mb']:6.0f} ({error(cell, 'peak_mb'):+.0%})"
    return f"{name:<24}{minutes}   {memory}"


if __name__ == "__main__":
    main()
