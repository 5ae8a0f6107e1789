"""A run answered by the engine and by each of its exports: texts a second, one text's time, agreement, accuracy, size.

python benchmarks/export_speed.py RUN TEST.parquet

Every contestant is given whole texts, tokenizing counts. Those of padded batches get texts of similar length together, 32 at
a time, which is their fastest. Contestants take turns.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

import rankwise
from rankwise import data, files
from rankwise.errors import UserError
from rankwise.export.command import export
from rankwise.export.judge import judge
from rankwise.export.targets import Options
from rankwise.inference import saved
from rankwise.machine import description

RESULT = Path(__file__).parent / "results" / "export_speed.json"
BATCH = 32
TARGETS = ("onnx", "onnx-int8", "openvino", "static")
Logits = Callable[[Sequence[str]], np.ndarray]


def main() -> None:
    """Export, answer in turns, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("test", help="Parquet with text and label")
    parser.add_argument("--folder", type=Path, default=Path("runs/export_speed"), help="where the exports are, or go")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--singles", type=int, default=200, help="texts that are asked alone")
    parser.add_argument("--prepare", action="store_true", help="export, then stop")
    args = parser.parse_args()
    reports = {target: exported(args.run, target, args.folder) for target in TARGETS}
    if args.prepare:
        return
    rows, classifier = rows_of(args.run, args.test), saved.read(args.run)
    contestants: dict[str, Logits] = {}
    for precision in ("fp32", "bf16", "int8"):
        contestants[f"engine, {precision}"] = rankwise.load(args.run, precision=precision).logits
    for target in TARGETS:
        if (args.folder / target / "predict.py").is_file():
            contestants[target] = (
                padded(program_of(args.folder / target)) if target != "static" else program_of(args.folder / target)
            )
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    answers: dict[str, np.ndarray] = {}
    for logits in contestants.values():
        logits(rows.texts[:64])
    for number in range(args.rounds):
        for name in list(contestants)[:: 1 if number % 2 == 0 else -1]:
            started = time.perf_counter()
            answers[name] = contestants[name](rows.texts)
            seconds[name].append(time.perf_counter() - started)
    told = {}
    for name, logits in contestants.items():
        rate = len(rows) / float(np.median(seconds[name]))
        size = sum(path.stat().st_size for path in (args.folder / name).rglob("*")) if name in TARGETS else 0
        judgement = judge(
            name, answers["engine, fp32"], answers[name], rows, saved=classifier, texts_per_s=rate, size=size
        )
        told[name] = judgement.to_dict() | singles(logits, rows.texts[: args.singles])
        told[name]["times_fp32_engine"] = round(rate / told["engine, fp32"]["texts_per_s"], 2)
        print(
            judgement.told(),
            f"{told[name]['times_fp32_engine']} times, one text p50 {told[name]['p50_ms']} p99 {told[name]['p99_ms']} ms",
        )
    setting = {"run": Path(args.run).name, "threads": torch.get_num_threads(), "rows": len(rows)}
    result = {"setting": setting, "cells": told, "exports": reports, "environment": description.describe().to_dict()}
    files.write_json(RESULT, result)


def exported(run: str, target: str, folder: Path) -> Any:
    """What the export says of itself; made where it is not there."""
    place = folder / f"{target}.json"
    if not place.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            outcome = export(run, target, folder / target, Options(accept_loss=True, say=print))
        except UserError as error:
            outcome = {"refused": str(error)}
        files.write_json(place, {name: value for name, value in outcome.items() if name != "out"})
    return files.read_json(place)


def rows_of(run: str, test: str) -> data.Rows:
    """The texts and labels, as the run numbers them."""
    names = rankwise.load(run).label_names
    table = pq.read_table(test)
    numbers = np.array([names.index(str(label)) for label in table["label"].to_pylist()])
    return data.Rows(table["text"].to_pylist(), numbers, list(range(len(numbers))), "", "")


def program_of(folder: Path) -> Logits:
    """`logits` of an artefact's own program."""
    spec = importlib.util.spec_from_file_location(f"predict_{folder.name.replace('-', '_')}", folder / "predict.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    logits: Logits = module.logits
    return logits


def padded(logits: Logits) -> Logits:
    """The same, texts of similar length together."""

    def sorted_logits(texts: Sequence[str]) -> np.ndarray:
        order = np.argsort([len(text) for text in texts], kind="stable")
        pieces = [logits([texts[row] for row in order[start : start + BATCH]]) for start in range(0, len(order), BATCH)]
        answers: np.ndarray = np.concatenate(pieces)[np.argsort(order, kind="stable")]
        return answers

    return sorted_logits


def singles(logits: Logits, texts: Sequence[str]) -> dict[str, float]:
    """One text at a time, milliseconds."""
    taken = []
    for text in texts:
        started = time.perf_counter()
        logits([text])
        taken.append(1000 * (time.perf_counter() - started))
    return {f"p{share}_ms": round(float(np.percentile(taken, share)), 2) for share in (50, 99)}


if __name__ == "__main__":
    main()
