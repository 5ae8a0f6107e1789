"""The papers' recipes on encoders and rows at hand, one result file a run; started again, it goes on.

python benchmarks/reproduction.py --train TRAIN.parquet --test TEST.parquet

Every recipe runs as it stands on the small encoder, three of them on the base-size one. The test rows are scored
once, when a run has ended. Weights stay in the run's folder; the result file holds numbers alone, with the hits and
misses on the test rows, so that `reproduction_table.py` can pair the runs without them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import rankwise
from rankwise import config as configuration
from rankwise import files, recipes
from rankwise.runs.folder import Run
from rankwise.scoring import predictions

SMALL, BASE = "packaged:all-MiniLM-L6-v2", "packaged:all-mpnet-base-v2"
# The shortest first: a wrong path or a full disk shows early.
ON_SMALL = (
    "noppe-brandon",
    "team-yan",
    "bengochea-high",
    "bengochea-low",
    "dasari-as-run",
    "dasari-as-written",
    "sarkar",
)
ON_BASE = ("noppe-brandon", "team-yan", "bengochea-low")
JOBS = [*((SMALL, recipe) for recipe in ON_SMALL), *((BASE, recipe) for recipe in ON_BASE)]
RESULTS = Path(__file__).parent / "results" / "reproduction"


def main() -> None:
    """Run what has no result file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="labelled texts to train on: a file or a data set's name")
    parser.add_argument("--test", help="labelled texts to be scored once; else give data.test_size=N among the words")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="MODEL=RECIPE",
        help=f"these instead of the ten: a model's name and a recipe or YAML file, such as {SMALL}=noppe-brandon",
    )
    parser.add_argument("--steps", type=int, help="steps instead of each recipe's own, to try this script out")
    parser.add_argument("--runs", type=Path, default=Path("runs/reproduction"), help="where the run folders go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result files go")
    parser.add_argument("words", nargs="*", metavar="key=value", help="for every recipe; after -- where --only is last")
    args = parser.parse_args()
    jobs = [tuple(word.split("=", 1)) for word in args.only] if args.only else JOBS
    files.make_writable_folder(args.results)
    for number, (model, recipe) in enumerate(jobs, 1):
        name = f"{short(model)}-{Path(recipe).stem}"
        target = args.results / f"{name}.json"
        if target.exists():
            print(f"[{number}/{len(jobs)}] {name}: done already", flush=True)
            continue
        print(f"[{number}/{len(jobs)}] {name} ...", flush=True)
        result = reproduce(model, recipe, asked(args), args.runs / name)
        files.write_json(target, result)
        test = result["test"]
        print(f"    test accuracy {test['accuracy']:.4f}, {result['minutes']['train']:.1f} minutes of training")


def short(model: str) -> str:
    """The model's last name, for files and tables."""
    return model.rstrip("/").rpartition("/")[2].removeprefix("packaged:")


def asked(args: argparse.Namespace) -> list[str]:
    """The settings that every recipe is given: the rows, and what was asked of all."""
    words = [f"data.train={args.train}", *([f"data.test={args.test}"] if args.test else []), *args.words]
    if args.steps is not None:
        words += ["train.epochs=null", f"train.steps={args.steps}", "train.warmup_steps=null"]
    return words


def reproduce(model: str, recipe: str, words: list[str], folder: Path) -> dict[str, Any]:
    """Train, or go on with training; score the test rows unless that was done; and gather the numbers."""
    return gathered(trained_and_scored(recipe, [f"model.name={model}", *words], folder), model, recipe)


def trained_and_scored(source: configuration.ConfigLike, words: list[str], folder: Path) -> Run:
    """A run that was trained to its end, now or before, its test rows scored once."""
    run = rankwise.train(source, words, out=folder, resume=(folder / "config.yaml").exists())
    if "test" not in run.result["metrics"]:
        rankwise.evaluate(run)
    return run


def gathered(run: Run, model: str, recipe: str) -> dict[str, Any]:
    """The numbers of a run that a table needs, and what they were measured with."""
    result, scored = run.result, predictions.read(run.path, "test")
    metrics, timing = result["metrics"], result["timing"]
    hits = np.asarray(scored.predicted) == np.asarray(scored.labels)
    peak = max(row["validation_accuracy"] or 0.0 for row in run.history)
    numbers = ("examples", "accuracy", "accuracy_ci95", "loss", "macro_f1", "ece")
    shipped = recipes.path(recipe)
    config = configuration.to_dict(run.config)
    rows = {role: dict(about) for role, about in result["data"].items()}
    # Where the rows lay on one machine is of no use on another: their hash is.
    for role in ("train", "test"):
        if config["data"][role]:
            config["data"][role] = Path(config["data"][role]).name
    for about in rows.values():
        if about.get("source"):
            about["source"] = Path(about["source"]).name
    return {
        "model": model,
        "recipe": Path(recipe).stem,
        "reported": reported(shipped) if shipped else None,
        "status": result["status"],
        "notes": result.get("notes", []),
        "parameters": result["parameters"],
        "validation": {name: metrics["validation"][name] for name in ("step", *numbers)},
        "validation_last": metrics["validation_last"],
        "validation_peak": peak,
        "test": {name: metrics["test"][name] for name in ("looks", *numbers)},
        "floor": {role: metrics["floor"][role]["accuracy"] for role in ("validation", "test") if "floor" in metrics},
        "minutes": {"train": round(timing["train_s"] / 60, 2), "evaluation": round(timing["eval_s"] / 60, 2)},
        "timing": timing,
        "memory": result["memory"],
        "engine": result["engine"],
        "data": rows,
        "config": config,
        "config_hash": result["config_hash"],
        "environment": {name: value for name, value in result["environment"].items() if name != "platform"},
        "hits": np.packbits(hits).tobytes().hex(),
    }


def reported(recipe: Path) -> str:
    """What a recipe's comments say the paper reports."""
    lines = [line.removeprefix("# ").strip() for line in recipe.read_text(encoding="utf-8").splitlines()]
    found = next((line for line in lines if line.startswith("Reported:")), "Reported: no accuracy is stated.")
    return found.removeprefix("Reported:").strip()


if __name__ == "__main__":
    main()
