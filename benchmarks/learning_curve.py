"""How often the gain of twice the labels falls into the band that `auto` says, over draws of training rows.

python benchmarks/learning_curve.py DIR [--draws 20] [--rows 400 1200]

DIR holds a folder of train.parquet a set. For every set, number of rows and draw: heads on frozen features are fitted to
the rows and to twice as many, both asked for all other rows; the band comes from the first rows alone. A set that is in the
result's file with as many draws is not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rankwise import config as configuration
from rankwise import files, planning
from rankwise.data.tokens import tokenise
from rankwise.deadline import NEVER
from rankwise.machine import caches
from rankwise.machine.description import describe
from rankwise.models import tokenizer_of
from rankwise.models.classifier import classifier_of
from rankwise.models.fresh import assembled
from rankwise.search.after.curve import LEVEL, held_out_right, of_twice_the_labels
from rankwise.search.sweep.trial import load_data
from rankwise.training import probe
from rankwise.training.objective import Objective

RESULT = Path(__file__).parent / "results" / "learning_curve.json"
PLAIN = Objective(smoothing=0.0, class_weights=None, multi_label=False)
ROWS, TOKENS, BATCH = 4_200, 64, 64
"""of a set that are used, tokens of a text, and texts that are computed at once"""


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--model", default="packaged:all-MiniLM-L6-v2")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--rows", type=int, nargs="*", default=[400, 1200])
    parser.add_argument("--sets", nargs="*", help="default: all of the folder")
    args = parser.parse_args()
    known: dict[str, Any] = files.read_json(RESULT)["cells"] if RESULT.is_file() else {}
    for path in sorted(args.folder.glob("*/train.parquet")):
        name, found = path.parent.name, None
        if args.sets and name not in args.sets:
            continue
        for rows in args.rows:
            cell = f"{name} {rows}"
            if len(known.get(cell, [])) >= args.draws:
                continue
            found = found or features(path, args.model)
            if 2.5 * rows > len(found[1]):  # too few are left to tell the gain by
                continue
            known[cell] = [drawn(*found, rows, draw) for draw in range(args.draws)]
            files.write_json(RESULT, {"environment": describe().to_dict(), "level": LEVEL, "cells": known})
            print(line(cell, known[cell]), flush=True)
    draws = [draw for cell in known.values() for draw in cell]
    print(line("all", draws))


def features(path: Path, model: str) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """What heads receive of some rows of a set, and their labels. Shapes: (rows, features), (rows,)"""
    words = [f"model.name={model}", "adapter.method=probe", "head.pooling=mean", f"data.train={path}"]
    config = configuration.load({}, [*words, "train.evaluate=false"])
    roles = load_data(config.data, ["train"])
    assert roles.train is not None
    plan, tokenizer = planning.plan(config, len(roles.label_names)), tokenizer_of(config.model)
    base = assembled(plan.config, plan.num_labels, roles.label_names)
    network = classifier_of(base, plan.config, pad_token_id=tokenizer.pad_token_id)
    weight, _ = probe.projection_of(base)
    rows = np.random.default_rng(0).permutation(len(roles.train))[:ROWS]
    tokens = tokenise(roles.train.texts, tokenizer, TOKENS, caches.cache("tokens"), positions=plan.positions)
    found = probe.features(network, weight, tokens.take(rows), BATCH)
    return found[:, -plan.encoder.hidden :], roles.train.labels[rows]


def drawn(found: torch.Tensor, labels: NDArray[np.int64], rows: int, draw: int) -> dict[str, float]:
    """A draw: the band by the first rows, and the gain."""
    classes, order = int(labels.max()) + 1, np.random.default_rng([draw, rows]).permutation(len(labels))
    first, twice, others = order[:rows], order[: 2 * rows], order[2 * rows :]
    penalty = probe.best_penalty(found[first], labels[first], classes, PLAIN, draw)
    told = held_out_right(found[first], labels[first], classes, PLAIN, penalty, draw, NEVER)
    assert told is not None
    gain = of_twice_the_labels(*told, seed=draw)
    accuracies = []
    for kept in (first, twice):
        weight, bias, _ = probe.solve(found[kept], labels[kept], classes, PLAIN, penalty)
        accuracies.append(float(((found[others] @ weight.T + bias).argmax(1).numpy() == labels[others]).mean()))
    return {"mean": gain.mean, "low": gain.low, "high": gain.high, "gain": accuracies[1] - accuracies[0]}


def line(name: str, draws: list[dict[str, float]]) -> str:
    """What the draws of a cell say."""
    inside = sum(one["low"] <= one["gain"] <= one["high"] for one in draws)
    claimed = sum(one["low"] > 0 for one in draws)
    mean, gain, width = (
        100 * float(np.mean([one[key] if key != "width" else one["high"] - one["low"] for one in draws]))
        for key in ("mean", "gain", "width")
    )
    return (
        f"{name:<16}{inside:>3} of {len(draws)} within the band of {LEVEL:.0%}; expected {mean:+.2f} points, came {gain:+.2f}, "
        f"band {width:.1f} wide; a gain was claimed {claimed} times"
    )


if __name__ == "__main__":
    main()
