"""How fast training is beside other programs: ours, the papers' way and a tuned peer, with 0, 1, 2 and 4 busy processes.

python benchmarks/beside.py --data ROWS.parquet

Each cell is one call of `rankwise bench train`, whose variants take turns. A busy process computes without a pause.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from busy import WITHOUT_A_PAUSE, busy
from cells import Cell, Cells, add_arguments

RESULT = Path(__file__).parent / "results" / "beside.json"
BUSY = (0, 1, 2, 4)
VARIANTS = ("papers", "bf16-grouped", "engine")


def main() -> None:
    """Measure beside each number of busy processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FILE", help="CSV or Parquet with a text and a label column")
    parser.add_argument("--model", default="packaged:all-MiniLM-L6-v2")
    parser.add_argument("--steps", default="4", help="of a turn")
    parser.add_argument("--rounds", default="3", help="turns of every variant")
    add_arguments(parser)
    args = parser.parse_args()
    cells = Cells(RESULT, args, model=args.model, variants=VARIANTS)
    for count in BUSY:
        cells.measure(f"{count} busy processes", lambda count=count: measured(args, count))  # type: ignore[misc]


def measured(args: argparse.Namespace, count: int) -> Cell:
    """Examples a second of every variant, by the mean of its steps, and how many times the papers' way ours has."""
    words = ["--data", args.data, "--model", args.model, "--steps", args.steps, "--rounds", args.rounds]
    words += ["--variants", ",".join(VARIANTS), "--json"]
    with tempfile.TemporaryDirectory() as place, busy([WITHOUT_A_PAUSE] * count):
        done = subprocess.run(
            [sys.executable, "-m", "rankwise", "bench", "train", *words, "--out", place],
            check=True,
            capture_output=True,
            text=True,
        )
    rows = json.loads(done.stdout)["variants"]
    batch = json.loads(done.stdout)["setting"]["batch_size"]
    by_mean = {name: round(batch / row["step_s_mean"], 1) for name, row in rows.items()}
    return {
        **by_mean,
        "times_papers": round(by_mean["engine"] / by_mean["papers"], 2),
        "times_peer": round(by_mean["engine"] / by_mean["bf16-grouped"], 2),
    }


if __name__ == "__main__":
    main()
