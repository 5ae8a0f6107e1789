"""Compare runs on the same rows: intervals, paired exact tests with Holm's correction, disagreements."""

from __future__ import annotations

import argparse
from pathlib import Path

from rankwise.cli import common
from rankwise.errors import UserError

EXAMPLE = "rankwise compare runs/a runs/b runs/c"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="two or more runs' folders")
    parser.add_argument("--role", choices=["test", "validation"], default="test", help="which rows (default: test)")
    parser.add_argument("--no-texts", action="store_true", help="show the rows they disagree on by number alone")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    from rankwise.runs.folder import open_run
    from rankwise.runs.texts import scored_texts
    from rankwise.scoring import compare

    if len(args.runs) < 2:
        raise UserError("compare needs two or more runs")
    runs = [open_run(folder) for folder in args.runs]
    comparison = compare.run([run.path for run in runs], args.role)
    # All runs were scored on the same rows: the first whose source is still there gives the texts for all.
    found = (scored_texts(run, read)[0] for run, read in zip(runs, comparison.runs, strict=True))
    source = None if args.no_texts else next((texts for texts in found if texts is not None), None)
    texts = None if source is None else source.__getitem__
    return common.show(args, comparison.to_dict(texts=texts), comparison.text(texts=texts))
