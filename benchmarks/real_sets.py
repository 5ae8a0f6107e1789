"""`auto` beside what an engineer would try first, over a folder of sets; one result file a cell, started again it goes on.

python benchmarks/real_sets.py DIR [--minutes 3] [--seeds 0 1] [--peers auto tfidf setfit] [--sets trec6]

DIR holds a folder a set, each with a train and a test file of any kind that Rankwise reads. Every contestant gets the same
training rows and the same clock, in a process of its own; it never sees a test label, and its answers are scored once, when
its cell is written. `real_sets_table.py` makes the page docs/real-sets.md of the files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rankwise import evaluate, files
from rankwise.machine import description
from rankwise.runs.folder import Run, open_run
from rankwise.scoring import metrics, predictions

sys.path.insert(0, str(Path(__file__).parent))
from real_peers import PEERS, read

AUTO = "auto"
RESULTS = Path(__file__).parent / "results" / "real_sets"
_PATIENCE = 5
"""clocks after which a contestant that does not end is given up"""


def main() -> None:
    """Run what has no result file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder of sets")
    parser.add_argument("--minutes", type=float, default=3.0, help="the clock of every contestant (default: 3)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a cell each; what no seed changes runs once")
    parser.add_argument("--peers", nargs="+", choices=[AUTO, *PEERS], default=[AUTO, *PEERS], help="these alone")
    parser.add_argument("--sets", nargs="+", help="these alone")
    parser.add_argument("--base", default="packaged:all-MiniLM-L6-v2", help="the encoder that all of them start from")
    parser.add_argument("--static", help="a folder of static embeddings (model2vec)")
    parser.add_argument(
        "--auto-runs",
        type=Path,
        metavar="DIR",
        help="take auto's folders DIR/SET-auto-seedN, where there are any; DIR/SET is one of the first seed",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/real_sets"), help="where auto's folders go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result files go")
    parser.add_argument("--words", nargs="+", default=[], metavar="key=value", help="how rows are read: data.text=...")
    args = parser.parse_args()
    files.make_writable_folder(args.results)
    for name, train, test in sets(args.folder, args.sets):
        for peer in args.peers:
            for seed in args.seeds if peer == AUTO or PEERS[peer].seeded else args.seeds[:1]:
                run_cell(args, name, train, test, peer, seed)


def sets(folder: Path, wanted: Sequence[str] | None = None) -> list[tuple[str, Path, Path]]:
    """Name, training file and test file of every set below a folder."""
    found = []
    for inside in sorted(path for path in folder.iterdir() if path.is_dir()):
        pair = [sorted(inside.glob(f"{role}.*")) for role in ("train", "test")]
        if all(len(files_of_role) == 1 for files_of_role in pair):
            found.append((inside.name, pair[0][0], pair[1][0]))
    missing = sorted(set(wanted or ()) - {name for name, _, _ in found})
    if missing or not found:
        raise SystemExit(
            f"{folder} holds no set {', '.join(missing)}: a set is a folder with one train and one test file"
        )
    return [one for one in found if not wanted or one[0] in wanted]


def run_cell(args: argparse.Namespace, name: str, train: Path, test: Path, peer: str, seed: int) -> None:
    """One contestant on one set under one seed, unless its file is there or it cannot run here."""
    cell, target = f"{name}-{peer}-seed{seed}", args.results / f"{name}-{peer}-seed{seed}.json"
    if target.exists():
        print(f"{cell}: done already", flush=True)
        return
    reason = None if peer == AUTO else PEERS[peer].missing(args.static)
    if reason is not None:
        print(f"{cell}: skipped, {reason}", flush=True)
        return
    print(f"{cell} ...", flush=True)
    answered = of_auto(args, name, train, test, seed) if peer == AUTO else of_peer(args, train, test, peer, seed)
    if answered is None:
        return
    roles = read(str(train), str(test), args.words)
    scores = scored(answered.pop("predicted"), roles.test.labels, roles.label_names)
    about = {
        "set": name,
        "peer": peer,
        "title": "`auto`" if peer == AUTO else PEERS[peer].title,
        "seed": seed,
        "minutes": args.minutes,
        "base": Path(args.base).name,
        "train_rows": len(roles.train),
        "classes": len(roles.label_names),
        "test_sha256": roles.test.sha256,
    }
    where = answered.pop("environment", None) or description.describe().to_dict()
    environment = {key: value for key, value in where.items() if key != "platform"}
    files.write_json(target, about | answered | scores | {"environment": environment})
    print(
        f"    accuracy {scores['accuracy']:.4f}, macro F1 {scores['macro_f1']:.4f}, {answered['seconds']:.0f} s",
        flush=True,
    )


def of_peer(args: argparse.Namespace, train: Path, test: Path, peer: str, seed: int) -> dict[str, Any] | None:
    """A peer's answers and seconds, from the start of its process to its end; None where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.json"
        command = [sys.executable, str(Path(__file__).with_name("real_peers.py")), peer, str(train), str(test)]
        command += [str(answers), "--seed", str(seed), "--minutes", str(args.minutes), "--base", args.base]
        command += [*(["--static", args.static] if args.static else []), *args.words]
        seconds = timed(command, args.minutes)
        if seconds is None:
            return None
        answered = json.loads(answers.read_text(encoding="utf-8"))
        return {"predicted": answered["predicted"], "seconds": seconds, "notes": answered["notes"]}


def of_auto(args: argparse.Namespace, name: str, train: Path, test: Path, seed: int) -> dict[str, Any] | None:
    """`auto`'s answers: of a folder that is there already, or of a run made now."""
    there = folder_there(args, name, seed)
    if there is not None:
        folder, seconds = there, 60 * files.read_json(there / "search.json")["auto"]["minutes"]
    else:
        folder = args.runs / f"{name}-auto-seed{seed}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "rankwise", "auto", str(train), f"data.test={test}", f"model.name={args.base}"]
        command += [f"train.seed={seed}", "--max-minutes", str(args.minutes), "--out", str(folder), *args.words]
        measured = timed(command, args.minutes)
        if measured is None:
            return None
        seconds = measured
    record = files.read_json(folder / "search.json")
    run: Run = open_run(folder)
    if "drawn_from" in record["winner"].get("test", {}):  # the clock had no time for all test rows
        evaluate(run.path)
    kept = predictions.read(run.path, "test")
    roles = read(str(train), str(test), args.words)
    if kept.label_names != roles.label_names or not np.array_equal(kept.labels, roles.test.labels):
        raise SystemExit(f"{folder} was scored on other test rows than {test}")
    return {
        "predicted": kept.predicted.tolist(),
        "seconds": seconds,
        "notes": [f"{record['winner']['point'].get('design', record['winner']['run'])}"],
        "trainable": run.result["parameters"]["trainable"],
        "environment": run.result["environment"],
        "validation_accuracy": record["winner"]["chosen"],
    }


def folder_there(args: argparse.Namespace, name: str, seed: int) -> Path | None:
    """A folder that `auto` has made of a set under a seed: DIR/SET-auto-seedN, or for the first seed DIR/SET."""
    if args.auto_runs is None:
        return None
    places = [args.auto_runs / f"{name}-auto-seed{seed}", *([args.auto_runs / name] if seed == args.seeds[0] else [])]
    return next((place for place in places if (place / "search.json").is_file()), None)


def timed(command: Sequence[str], minutes: float) -> float | None:
    """Seconds that a command took; None, with its last words, where it failed."""
    started = time.time()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE * 60 * minutes + 120, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"    given up after {time.time() - started:.0f} s", flush=True)
        return None
    if done.returncode != 0:
        print("    failed: " + " / ".join(done.stderr.strip().splitlines()[-3:]), flush=True)
        return None
    return time.time() - started


def scored(predicted: Sequence[int], labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Accuracy with its interval, macro F1, and the hits a row packed to hexadecimal."""
    answers = np.asarray(predicted, dtype=np.int64)
    certain = np.eye(len(names))[answers]
    found = metrics.evaluate(certain, labels, names, probabilities=True).to_dict()
    numbers = {key: found[key] for key in ("examples", "accuracy", "accuracy_ci95", "macro_f1")}
    return numbers | {"hits": np.packbits(answers == labels).tobytes().hex()}


if __name__ == "__main__":
    main()
