"""Search folders made up for tests: the layout of real ones without their training."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np

from rankwise.scoring import predictions
from rankwise.scoring.intervals import wilson

SCOPES = [["query"], ["value"], ["query", "value"], ["query", "key", "value"]]
CLASSES = ["business", "science", "sport"]
ROWS = 200


def search_folder(folder: Path, trials: int, *, with_runs: int = 0, seed: int = 0) -> Path:
    """A search.json of so many trials, the first `with_runs` of which have run folders; every ninth one failed."""
    chance = random.Random(seed)
    truth = np.random.default_rng(seed).integers(0, len(CLASSES), ROWS)
    table, runs = [], []
    for number in range(trials):
        failed = number % 9 == 8
        right = int(ROWS * chance.uniform(0.82, 0.95))
        row = _row(number, chance, None if failed else right)
        table.append(row)
        run = f"trials/{number:04d}"
        runs.append(
            {"trial": number, "run": run, "status": row["status"], "seconds": round(20 + 60 * chance.random(), 2)}
        )
        if number < with_runs and not failed:
            _run(folder / run, truth, right, seed + number)
    table.sort(key=lambda row: -(row["chosen"] or 0))
    for row in table[:3]:
        row["in_best_group"] = row["chosen"] is not None
    best = next((row for row in table if row["chosen"] is not None), None)
    search = {
        "status": "finished" if best else "running",
        "metric": "accuracy",
        "table": table,
        "groups": [[row["trial"] for row in table[:3]]] if best else [],
        "finalists": [],
        "notes": ["train.learning_rate: the best value 0.001 is the highest tried"] if best else [],
        "winner": best and {"run": f"trials/{best['trial']:04d}", **best},
        "trials": runs,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "search.json").write_text(json.dumps(search))
    (folder / "search.yaml").write_text("base: noppe-brandon\n")
    return folder


def _row(number: int, chance: random.Random, right: int | None) -> dict:
    """A row of the table; without right rows the trial failed."""
    point = {
        "adapter.scope": chance.choice(SCOPES),
        "train.learning_rate": round(10 ** chance.uniform(-5, -3), 7),
        "adapter.dropout": chance.choice([0.0, 0.05, 0.1]),
    }
    score = None if right is None else right / ROWS
    return {
        "trial": number,
        "point": point,
        "status": "failed" if right is None else "done",
        "why": "the weights diverged" if right is None else None,
        "trainable": 900_000 + number,
        "rank": 8,
        "steps": 0 if right is None else 100,
        "peak": None if score is None else min(1.0, score + 0.01),
        "chosen": score,
        "chosen_ci95": None if right is None else list(wilson(right, ROWS)),
        "final": None if score is None else score - 0.005,
        "loss": None if score is None else round(1 - score + chance.random() / 10, 6),
        "seeds": 1,
        "mean": score,
        "sd": None,
        "in_best_group": False,
    }


def _run(folder: Path, truth: np.ndarray, right: int, seed: int) -> None:
    """A run's predictions with so many right rows."""
    chance = np.random.default_rng(seed)
    # Hard rows are hard for every trial, as in life.
    answers = truth.copy()
    wrong = np.argsort(np.arange(ROWS) + chance.normal(0, 8, ROWS))[: ROWS - right]
    answers[wrong] = (answers[wrong] + 1) % len(CLASSES)
    p = np.full((ROWS, len(CLASSES)), 0.1)
    p[np.arange(ROWS), answers] = 0.8
    folder.mkdir(parents=True)
    predictions.write(
        folder, "validation", CLASSES, rows_sha256="made", ids=list(range(ROWS)), labels=truth, probabilities=p
    )
