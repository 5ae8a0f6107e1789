"""Whether training in int8 costs accuracy: the same run in int8 and in what else this machine has, set by set, seed by seed.

python benchmarks/int8_quality.py DIR [DIR ...] [--seeds 0 1 2 3 4] [--steps 400]

DIR holds a folder a set, as for `real_sets.py`, or is such a folder. Both runs of a pair have the same rows, design and seed;
a pair that stands in the result file is not run again. Told of each: the test rows that one alone has right with an exact
paired test, Holm over all pairs, and how many answers of the run in the other arithmetic stay the same in int8, and for a
yardstick in fp32. Told of all:
the mean difference over sets with a bootstrap interval over seeds.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from real_peers import read
from real_sets import sets

import rankwise
from rankwise import config as configuration
from rankwise import files
from rankwise.machine import description
from rankwise.scoring.paired import holm, mcnemar

RESULTS = Path(__file__).parent / "results" / "int8_quality.json"
MOST_ROWS = 8_000
"""of a set's training rows, drawn by the seed: the steps see no more"""


def main() -> None:
    """Run the pairs that have no line yet, then tell what all of them say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=400, help="of 16 texts (default: 400)")
    parser.add_argument("--other", default="bf16", choices=["bf16", "fp32"], help="the arithmetic beside int8")
    parser.add_argument("--base", default="packaged:all-MiniLM-L6-v2")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    pairs = files.read_json(args.results)["pairs"] if args.results.exists() else []
    done = {(pair["set"], pair["seed"]) for pair in pairs}
    for seed in args.seeds:
        for name, train, test in sets_of(args.folders):
            if (name, seed) in done:
                continue
            pairs.append({"set": name, "seed": seed, **pair_of(args, train, test, seed)})
            print(pairs[-1], flush=True)
            files.write_json(args.results, summary(args, pairs))
    print({key: value for key, value in files.read_json(args.results).items() if key != "pairs"})


def sets_of(folders: list[Path]) -> list[tuple[str, Path, Path]]:
    """Name, training file and test file of every set."""
    found: list[tuple[str, Path, Path]] = []
    for folder in folders:
        one = [next(iter(sorted(folder.glob(f"{role}.*"))), None) for role in ("train", "test")]
        found += [(folder.name, one[0], one[1])] if one[0] and one[1] else sets(folder)
    return found


def pair_of(args: argparse.Namespace, train: Path, test: Path, seed: int) -> dict[str, Any]:
    """Both runs of a set and a seed, and what their test answers say."""
    roles = read(str(train), str(test))
    rows, names = roles.train, roles.label_names
    if len(rows) > MOST_ROWS:
        rows = rows.take(np.sort(np.random.default_rng(seed).choice(len(rows), MOST_ROWS, replace=False)))
    with tempfile.TemporaryDirectory() as folder:
        data = {"train": f"{folder}/train.csv", "classes": list(names), "validation_size": 0.02}
        with Path(data["train"]).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(
                [("text", "label"), *zip(rows.texts, (names[label] for label in rows.labels), strict=True)]
            )
        answers: dict[str, NDArray[Any]] = {}
        for precision in (args.other, "int8"):
            tree = {
                "data": data,
                "model": {"name": args.base, "precision": precision},
                "adapter": {"scope": "all", "rank": "max"},
                "head": {"probe_first": True},
                "train": {
                    "steps": args.steps,
                    "batch_size": 16,
                    "learning_rate": 1e-3,
                    "seed": seed,
                    "evaluate": False,
                },
            }
            run = rankwise.train(configuration.from_dict(tree), out=f"{folder}/{precision}")
            answers[precision] = rankwise.load(run).logits(roles.test.texts).argmax(1)
        for precision in ("int8", "fp32"):
            answers[f"in {precision}"] = (
                rankwise.load(f"{folder}/{args.other}", precision=precision).logits(roles.test.texts).argmax(1)
            )
    right = {name: found == roles.test.labels for name, found in answers.items()}
    only = [int((right[a] & ~right[b]).sum()) for a, b in ((args.other, "int8"), ("int8", args.other))]
    return {
        "rows": len(roles.test),
        args.other: round(float(right[args.other].mean()), 4),
        "int8": round(float(right["int8"].mean()), 4),
        **{
            f"{args.other}_answers_the_same_in_{precision}": round(
                float((answers[args.other] == answers[f"in {precision}"]).mean()), 5
            )
            for precision in ("int8", "fp32")
        },
        f"only_{args.other}": only[0],
        "only_int8": only[1],
        "p": float(mcnemar(*only)),
    }


def summary(args: argparse.Namespace, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """The pairs, and what they say together."""
    corrected = holm([pair["p"] for pair in pairs])
    pairs = [{**pair, "p_holm": round(float(p), 4)} for pair, p in zip(pairs, corrected, strict=True)]
    same = f"{args.other}_answers_the_same_in"
    names = sorted({pair["set"] for pair in pairs})
    points = [[100 * (pair["int8"] - pair[args.other]) for pair in pairs if pair["set"] == name] for name in names]

    def agreed(name: str, precision: str) -> list[float]:
        return [pair[key] for pair in pairs if pair["set"] == name and (key := f"{same}_{precision}") in pair]

    generator = np.random.default_rng(0)
    means = [
        np.mean([np.mean(generator.choice(of_set, len(of_set))) for of_set in points]) for _ in range(10_000)
    ]  # sets are fixed, seeds are drawn
    return {
        "model": args.base,
        "other": args.other,
        "steps": args.steps,
        "environment": description.describe().to_dict(),
        "points": round(float(np.mean([np.mean(of_set) for of_set in points])), 3),
        "points_ci95": [round(float(bound), 3) for bound in np.percentile(means, [2.5, 97.5])],
        "points_of_sets": {name: round(float(np.mean(of_set)), 3) for name, of_set in zip(names, points, strict=True)},
        "answers_the_same": {
            precision: {name: round(float(np.mean(of_set)), 5) for name in names if (of_set := agreed(name, precision))}
            for precision in ("int8", "fp32")
        },
        "least_p_holm": min(pair["p_holm"] for pair in pairs),
        "pairs": pairs,
    }


if __name__ == "__main__":
    main()
