"""A search and its workers killed at random moments, again and again: is the table the undisturbed one?

python benchmarks/search_kills.py

Every trial keeps a checkpoint at each of its evaluations, every other step. `sessions` are the steps that its runs began
from: a rung of halving is one, and so is every time that a kill made another worker take it over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from rankwise import files
from rankwise.runs.folder import Run

RESULT = Path(__file__).parent / "results" / "search_kills.json"
WORDS = [
    "scope-sweep",
    "seeds=1",
    "data.max_length=32",
    "train.steps=54",
    "train.eval_every=2",
    "strategy.trials=8",
]


def main() -> None:
    """One undisturbed search, then one that is killed `--kills` times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument(
        "--longest", type=float, default=16.0, help="seconds until a kill, at most: a fifth of the search"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/search-kills"))
    args = parser.parse_args()
    started = time.time()
    whole = finish(args.runs / "whole", resume=False)
    undisturbed_s = time.time() - started
    chance, kills = random.Random(0), []
    for number in range(args.kills):
        process = start(args.runs / "cut", resume=(args.runs / "cut" / "search.yaml").exists())
        after = chance.uniform(2.0, args.longest)
        victim = "search" if number % 2 else "worker"
        kills.append({"after_s": round(after, 1), "killed": strike(process, victim, after)})
        print(kills[-1], flush=True)
    cut = finish(args.runs / "cut", resume=True)
    files.write_json(
        RESULT,
        {
            "kills": kills,
            "table_equal": cut["table"] == whole["table"],
            "groups_equal": cut["groups"] == whole["groups"],
            "points": cut["counts"]["points"],
            "sessions_whole": sessions(args.runs / "whole", whole),
            "sessions_cut": sessions(args.runs / "cut", cut),
            "undisturbed_s": round(undisturbed_s, 1),
        },
    )
    print(RESULT.read_text(encoding="utf-8"))


def start(folder: Path, *, resume: bool) -> subprocess.Popen[bytes]:
    """The search with two workers, in a session of its own."""
    command = [sys.executable, "-m", "rankwise", "search", *WORDS, "--out", str(folder), "--workers", "2", "--json"]
    return subprocess.Popen(
        [*command, *(["--resume"] if resume else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def strike(process: subprocess.Popen[bytes], victim: str, after: float) -> list[str]:
    """Kill the search, or one of its workers and later the search; returns which of them were there to be killed."""
    killed = []
    time.sleep(after)
    if victim == "worker" and process.poll() is None:
        children = [one for one in psutil.Process(process.pid).children() if "spawn_main" in " ".join(one.cmdline())]
        if children:
            os.kill(children[0].pid, signal.SIGKILL)
            killed.append("worker")
            time.sleep(after)
    if process.poll() is None:
        process.kill()
        killed.append("search")
    process.wait()
    return killed


def sessions(folder: Path, record: dict[str, Any]) -> list[list[int]]:
    """Of every trial that was run, the steps that its sessions began from."""
    return [Run(folder / trial["run"]).result["sessions"] for trial in record["trials"] if trial["run"]]


def finish(folder: Path, *, resume: bool) -> dict[str, Any]:
    """The search to its end."""
    output, _ = start(folder, resume=resume).communicate()
    record: dict[str, Any] = json.loads(output)
    return record


if __name__ == "__main__":
    main()
