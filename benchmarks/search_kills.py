"""A search and its workers killed at random moments, again and again: is the table the undisturbed one?

python benchmarks/search_kills.py
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

RESULT = Path(__file__).parent / "results" / "search_kills.json"
WORDS = [
    "scope-sweep",
    "seeds=1",
    "data.max_length=32",
    "train.steps=54",
    "train.eval_every=6",
    "strategy.trials=8",
]


def main() -> None:
    """One undisturbed search, then one that is killed `--kills` times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--longest", type=float, default=45.0, help="seconds until a kill, at most")
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
        kills.append({"victim": victim, "after_s": round(after, 1), "hit": strike(process, victim, after)})
        print(kills[-1], flush=True)
    cut = finish(args.runs / "cut", resume=True)
    files.write_json(
        RESULT,
        {
            "kills": kills,
            "table_equal": cut["table"] == whole["table"],
            "groups_equal": cut["groups"] == whole["groups"],
            "points": cut["counts"]["points"],
            "configurations_run_twice": len(cut["trials"]) - len({t["config_hash"] for t in cut["trials"]}),
            "steps_whole": whole["counts"]["steps"],
            "steps_cut": cut["counts"]["steps"],
            "undisturbed_s": round(undisturbed_s, 1),
        },
    )
    print(RESULT.read_text(encoding="utf-8"))


def start(folder: Path, *, resume: bool) -> subprocess.Popen[bytes]:
    """The search with two workers, in a session of its own."""
    command = [sys.executable, "-m", "rankwise", "search", *WORDS, "--out", str(folder), "--workers", "2", "--json"]
    return subprocess.Popen(
        [*command, *(["--resume"] if resume else [])], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def strike(process: subprocess.Popen[bytes], victim: str, after: float) -> bool:
    """Kill the search, or one of its workers and then the search; False when it had ended before."""
    time.sleep(after)
    if process.poll() is not None:
        return False
    if victim == "worker":
        children = [one for one in psutil.Process(process.pid).children() if "spawn_main" in " ".join(one.cmdline())]
        if children:
            os.kill(children[0].pid, signal.SIGKILL)
            time.sleep(after)
    process.kill()
    process.wait()
    return True


def finish(folder: Path, *, resume: bool) -> dict[str, Any]:
    """The search to its end."""
    output, _ = start(folder, resume=resume).communicate()
    record: dict[str, Any] = json.loads(output)
    return record


if __name__ == "__main__":
    main()
