"""Label the texts of a file, or of a folder of text files, in constant memory; the order of rows is kept.

The output's format follows its ending: .csv, .jsonl or .parquet; kaggle is a CSV of ID and Label,
both counted from 0: rows in their order, labels in that of `rankwise evaluate`.
With --ray a cluster labels the files of a pattern into a folder of Parquet files.
"""

from __future__ import annotations

import argparse
import sys

from rankwise.cli import common
from rankwise.errors import UserError

EXAMPLE = "rankwise predict runs/mine new.csv predictions.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run's folder, a search's (its winner), or a PEFT adapter folder")
    parser.add_argument("input", metavar="INPUT", help="CSV, TSV, JSONL, Parquet, or text with one example a line")
    parser.add_argument("output", metavar="OUTPUT", help="the file to write")
    parser.add_argument(
        "words", nargs="*", metavar="model.name=FOLDER", help="where the base is, if it is not where the adapter says"
    )
    parser.add_argument(
        "--format", choices=["csv", "jsonl", "parquet", "kaggle"], help="default: by the output's ending"
    )
    parser.add_argument(
        "--text", metavar="COLUMN", action="append", help="text column; repeat to join several (default: the run's)"
    )
    parser.add_argument(
        "--kaggle-header",
        metavar="LINE",
        help="first line of the kaggle format: ID,Label (the default) or ID,label",
    )
    parser.add_argument(
        "--calibrated", action="store_true", help="probabilities at the temperature fitted by rankwise calibrate"
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="label over Ray Data: a cluster's address, auto or local; OUTPUT is then a folder of Parquet files",
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Predict and say how many rows were written."""
    base = _base(args.words)
    if args.ray:
        return _over_ray(args, base)
    from rankwise.inference.predict_file import predict_file

    outcome = predict_file(
        args.run,
        args.input,
        args.output,
        format=args.format,
        text=args.text,
        kaggle_header=args.kaggle_header,
        calibrated=args.calibrated,
        base=base,
    )
    for note in outcome["notes"]:
        print(f"note: {note}", file=sys.stderr)
    if args.json:
        common.print_json(outcome)
    else:
        print(f"{outcome['rows']:,} rows written to {args.output} ({outcome['texts_per_s']:.0f} texts/s)")
    return 0


def _base(words: list[str]) -> str | None:
    """The base that is named on the command line."""
    base = None
    for word in words:
        key, _, base = word.partition("=")
        if key != "model.name" or not base:
            raise UserError(f"'{word}' cannot change at prediction: only model.name may, the rest is the run's")
    return base


def _over_ray(args: argparse.Namespace, base: str | None) -> int:
    """The same over a cluster, for more files than one machine cares to read."""
    if args.format not in (None, "parquet"):
        raise UserError(f"--format {args.format} cannot apply with --ray, which writes a folder of Parquet files")
    if args.kaggle_header is not None:
        raise UserError("--kaggle-header cannot apply with --ray, which writes a folder of Parquet files")
    from rankwise.search import bulk

    rows = bulk.predict(
        args.run, args.input, args.output, address=args.ray, text=args.text, calibrated=args.calibrated, base=base
    )
    if args.json:
        common.print_json({"rows": rows, "output": args.output})
    else:
        print(f"{rows:,} rows written to the folder {args.output}")
    return 0
