"""Whether `auto` ends in time: many starts with clocks of half a minute to three, half of them beside a load that comes and goes.

python benchmarks/clocks.py FILE [key=value ...] [--starts 50] [--seed 0] [--results FILE.json]

Every start is a process of its own, timed from outside, interpreter and imports included. Its clock, its rows (a few to all of the
file's) and whether there is load are drawn by the seed; the load is as many busy processes as there are cores, each busy and
idle in turns of seconds. A start's line is kept in the result file as it ends; started again it goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from busy import busy

from rankwise import data, files
from rankwise.config import from_dict as config_of
from rankwise.machine import description

RESULTS = Path(__file__).parent / "results" / "clocks.json"
CLOCKS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
ROWS = (120, 400, 2_000, None)
"""training rows: two kinds below 500, where folds choose; None is all"""
BUSY = """
import random, sys, time
chance = random.Random(int(sys.argv[1]))
while True:
    until = time.monotonic() + chance.uniform(2, 15)
    while time.monotonic() < until:
        sum(range(10_000))
    time.sleep(chance.uniform(2, 15))
"""


def main() -> None:
    """Run the starts that have no line yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="labelled texts, of any kind that Rankwise reads")
    parser.add_argument("--starts", type=int, default=50, help="how many (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--longest", type=float, default=max(CLOCKS), help="no clock above so many minutes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the result file")
    parser.add_argument("words", nargs="*", metavar="key=value", help="for auto: model.name=..., data.text=...")
    args = parser.parse_args()
    kept = files.read_json(args.results) if args.results.is_file() else {"starts": []}
    rows = data.load(config_of({"data": {"train": args.file}}).data, roles=["train"])
    named = [rows.label_names[label] for label in rows.train.labels]
    for number in range(len(kept["starts"]), args.starts):
        drawn = draw(number, args.seed, args.longest)
        print(f"{number}: {drawn} ...", flush=True)
        kept["starts"].append(drawn | start(drawn, rows.train.texts, named, args.words))
        kept["overruns"] = sum(one["seconds"] > 60 * one["minutes"] for one in kept["starts"])
        kept["environment"] = description.describe().to_dict()
        files.write_json(args.results, kept)
        print(f"    {kept['starts'][-1]}", flush=True)
    print(f"{kept['overruns']} of {len(kept['starts'])} starts ran over their clock")


def draw(number: int, seed: int, longest: float) -> dict[str, Any]:
    """A start's clock, rows and load: every second one has load."""
    chance = random.Random(f"{seed} {number}")
    minutes = chance.choice([clock for clock in CLOCKS if clock <= longest])
    return {"number": number, "minutes": minutes, "rows": chance.choice(ROWS), "load": bool(number % 2)}


def start(drawn: dict[str, Any], texts: list[str], labels: list[str], words: list[str]) -> dict[str, Any]:
    """Run it; returns its seconds, exit status and what it shipped."""
    chance = random.Random(drawn["number"])
    chosen = chance.sample(range(len(texts)), min(drawn["rows"] or len(texts), len(texts)))
    with tempfile.TemporaryDirectory() as place, busy(load(drawn["number"] if drawn["load"] else None)):
        table, out = Path(place) / "train.csv", Path(place) / "auto"
        with table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["text", "label"], *([texts[row], labels[row]] for row in chosen)])
        command = [sys.executable, "-m", "rankwise", "auto", str(table), "--max-minutes", str(drawn["minutes"])]
        started = time.monotonic()
        done = subprocess.run([*command, "--out", str(out), *words], capture_output=True, text=True, check=False)
        seconds = round(time.monotonic() - started, 1)
        found: dict[str, Any] = {"seconds": seconds, "exit": done.returncode}
        if done.returncode:
            return found | {"said": done.stderr.strip().splitlines()[-1:]}
        record = json.loads((out / "search.json").read_text(encoding="utf-8"))
        return found | {"winner": record["winner"]["run"], "accuracy": record["winner"]["chosen"]}


def load(seed: int | None) -> list[tuple[str, ...]]:
    """Programs that are busy and idle in turns, one a core; none without a seed."""
    return [] if seed is None else [(BUSY, f"{seed}{one}") for one in range(os.cpu_count() or 1)]


if __name__ == "__main__":
    main()
