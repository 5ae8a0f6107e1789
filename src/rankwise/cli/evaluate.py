"""Score a run on its test rows, or an adapter on rows that you name; each look is recorded."""

from __future__ import annotations

import argparse

from rankwise.cli import common

EXAMPLE = "rankwise evaluate runs/mine data.test=held_out.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder, a search's (its winner), or a PEFT adapter folder")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="data.key=value",
        help="which rows: data.test=FILE and their columns; model.name=FOLDER",
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Score and print."""
    from rankwise.inference.evaluate import score
    from rankwise.scoring import looks, report

    scores = score(args.run, args.words)
    lines = [report.full(scores), *(f"\nnote: {note}" for note in scores.notes)]
    lines.append(f"\n{looks.sentence(scores.looks or 1, scores.looks_all)}")
    if max(scores.looks or 1, scores.looks_all or 1) > 1:
        lines.append("Choosing by what was seen makes them validation rows.")
    return common.show(args, {"metrics": {"test": scores.to_dict()}}, *lines)
