"""The facts of a run's folder: what was recorded, and what follows from its predictions."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from rankwise import config as configuration
from rankwise.methods import METHODS
from rankwise.records import Result, Scores
from rankwise.records.record import Tree
from rankwise.records.result import Parameters
from rankwise.runs.folder import Run
from rankwise.runs.texts import scored_texts
from rankwise.scoring import calibration, looks, predictions
from rankwise.scoring.predictions import Predictions

ROLES = ("test", "validation")
GROUPS = ("adapter", "dora", "bias", "head", "encoder", "words")
MISTAKES = 12
# A confusion matrix or a chart with a bar a class is readable up to here.
MOST_CLASSES = 25
MOST_CONFUSIONS = 30
_LONGEST_TEXT = 320


def facts_of(run: Run, *, texts: bool = True) -> Tree:
    """Everything a run's page shows, under the source it comes from: result, config, history, looks and derived.

    texts
        Read the texts of the most confident mistakes again from their source.
    """
    seen = looks.looks(run.path)
    result, config = run.record, configuration.to_dict(run.config)
    measured = {"test": result.metrics.test, "validation": result.metrics.validation}
    scores = {role: one for role, one in measured.items() if one is not None and one.per_class}
    scored = list(scores)
    found = {role: predictions.read(run.path, role) for role in ROLES if run.predictions(role).is_file()}
    return {
        "name": run.path.resolve().name,
        "path": str(run.path),
        "result": result.to_dict(),
        "config": config,
        "history": run.history if (run.path / "history.csv").is_file() else [],
        "looks": [look.to_dict() for look in seen],
        "sections": _sections(result, scored),
        "scored": scored,
        "most_classes": MOST_CLASSES,
        "confusions": {role: _confusions(one, result.labels) for role, one in scores.items()},
        "lowest_recall": {role: _lowest_recall(one) for role, one in scores.items()},
        "plan_words": _plan_words(config),
        "settings": _settings(config),
        "derived": {
            "classes": len(result.labels),
            "looks": len(seen),
            "left": (result.parameters.budget or 0) - result.parameters.trainable,
            "shares": {group: count / result.parameters.trainable for group, count in _groups(result.parameters)},
            "coverage": {role: _coverage(read) for role, read in found.items()},
            "abstention": {role: _abstention(read) for role, read in found.items()},
            "mistakes": {role: _mistakes(run, read, texts) for role, read in found.items()},
        },
        "commands": _commands(run, result),
        "yaml": configuration.to_yaml(run.config),
    }


def _groups(parameters: Parameters) -> list[tuple[str, int]]:
    counts = [(group, getattr(parameters, group)) for group in GROUPS]
    return [(group, count) for group, count in counts if count]


def _sections(result: Result, scored: Sequence[str]) -> list[tuple[str, str]]:
    """Anchor and title of the page's sections, in order."""
    parts = [("plan", "Plan"), ("learning", "Learning"), ("scores", "Scores")]
    if scored:
        parts += [("classes", "Classes"), ("confidence", "Confidence"), ("mistakes", "Mistakes")]
        parts += [(f"also-{role}", role.capitalize()) for role in scored[1:]]
    parts += [("texts", "Texts")] if result.texts else []
    return [*parts, ("machine", "Machine"), ("again", "Run it again")]


def _plan_words(config: Mapping[str, Any]) -> str:
    """The adapter in one line."""
    adapter = config["adapter"]
    words = [adapter["method"]]
    if METHODS[adapter["method"]].ranked:
        scope = adapter["scope"]
        words += [
            scope if isinstance(scope, str) else " ".join(scope),
            f"rank {adapter['rank']}",
            f"alpha {_short(adapter['alpha'])}",
        ]
    words += [word for key, word in (("dora", "DoRA"), ("rslora", "rsLoRA")) if adapter[key]]
    return ", ".join(words)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The keys a reader asks for first; the whole configuration stands at the end of the page."""
    adapter, train = config["adapter"], config["train"]
    length = ("train.steps", train["steps"]) if train["steps"] is not None else ("train.epochs", train["epochs"] or 3)
    return [
        ("model.name", config["model"]["name"]),
        ("adapter", _plan_words(config)),
        ("adapter.dropout", adapter["dropout"]),
        ("head.kind", config["head"]["kind"]),
        ("train.optimizer", train["optimizer"]),
        ("train.learning_rate", f"{train['learning_rate']:g}, {train['schedule']}"),
        length,
        ("train.batch_size", train["batch_size"] * train["accumulate"]),
    ]


def _lowest_recall(scores: Scores) -> float:
    """Where the line of recalls may start so that every interval is on it: a tenth."""
    lows = [row.recall_ci95[0] for row in scores.per_class.values() if row.recall_ci95]
    return min(0.9, math.floor(10 * min(lows, default=0.0)) / 10)


def _confusions(scores: Scores, names: Sequence[str]) -> list[Tree]:
    """The commonest confusions of many classes, the most frequent first."""
    if len(names) <= MOST_CLASSES or isinstance(scores.confusion[0][0], list):
        return []
    counts = np.array(scores.confusion)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:MOST_CONFUSIONS]
    cells = [divmod(int(place), len(names)) for place in order]
    return [{"row": a, "column": p, "label": names[a], "predicted": names[p]} for a, p in cells if counts[a, p]]


def _curve(read: Predictions) -> calibration.CoverageCurve:
    return calibration.coverage_curve(read.confidence, read.correct)


def _coverage(read: Predictions) -> list[dict[str, float]]:
    """The curve as at most about 60 points; the first rows alone say little, so it starts at a twentieth."""
    return [point for point in _curve(read).table(60) if point["coverage"] >= 0.05]


def _abstention(read: Predictions) -> list[Tree]:
    """What confidence to ask for, for accuracies above that of all rows."""
    curve = _curve(read)
    all_rows = float(curve.accuracy[-1])
    wanted = [share for share in (0.9, 0.95, 0.98, 0.99) if share > all_rows]
    rules = [(share, calibration.abstention(curve, share)) for share in wanted]
    return [{"wanted": share, **msgspec.to_builtins(rule)} for share, rule in rules if rule is not None]


def _mistakes(run: Run, read: Predictions, texts: bool) -> Tree:
    """The wrong rows the run was surest of, with their texts where the source still holds the same rows."""
    wrong = np.flatnonzero(~read.correct)
    rows = wrong[np.argsort(-read.confidence[wrong], kind="stable")][:MISTAKES]
    source, why = scored_texts(run, read) if texts and len(rows) else (None, "texts were not asked for")
    examples = [
        {
            "id": read.ids[row],
            "label": _names(read, read.labels[row]),
            "predicted": _names(read, read.predicted[row]),
            "confidence": float(read.confidence[row]),
            "text": None if source is None else _shortened(source[row]),
        }
        for row in rows.tolist()
    ]
    return {"wrong": len(wrong), "rows": len(read.ids), "why_no_texts": None if source else why, "examples": examples}


def _names(read: Predictions, answer: Any) -> str:
    if read.multi_label:
        return ", ".join(read.label_names[c] for c in np.flatnonzero(answer)) or "none"
    return read.label_names[int(answer)]


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _commands(run: Run, result: Result) -> list[dict[str, str]]:
    """What to type to get this run again, to go on with it, and to use it."""
    folder = str(run.path)
    again = ["rankwise", "train", f"{folder}/config.yaml", "--out", f"{folder}-again"]
    commands = [{"what": "run it again", "command": shlex.join(again)}]
    if not result.ended:
        resume = ["rankwise", "train", f"{folder}/config.yaml", "--out", folder, "--resume"]
        return [{"what": "go on where it stopped", "command": shlex.join(resume)}, *commands]
    if result.metrics.test is None:
        held = result.data.get("test")
        test = [] if held else ["data.test=held_out.csv"]
        commands.append(
            {"what": "score it on test rows", "command": shlex.join(["rankwise", "evaluate", folder, *test])}
        )
    predict = ["rankwise", "predict", folder, "new.csv", "predictions.csv"]
    return [*commands, {"what": "label new texts", "command": shlex.join(predict)}]
