"""Label the texts of a file, or of a folder of text files, in constant memory; the order of rows is kept.

Every row gets an answer, a row without text that of an empty text. The output's format follows its ending: .csv, .jsonl,
either packed as .gz, or .parquet. kaggle is a CSV of two columns, the file's own ids and the labels as training spelled them; where the file has
no ids it is the papers' ID,Label, both counted from 0. --like FILE follows a sample submission.
Several runs answer in shared passes where they have one base: columns NAME and NAME_p for each.
With --ray a cluster labels the files of a pattern into a folder of Parquet files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rankwise.cli import common
from rankwise.errors import UserError

EXAMPLE = "rankwise predict runs/mine new.csv predictions.csv"
_KEYS = ("model.name", "data.encoding", "data.delimiter", "data.quotes", "data.header")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="+",
        metavar="RUN|INPUT|OUTPUT|key=value",
        help="RUN: a run's folder, a search's (its winner), or a PEFT adapter folder; several give columns of each. "
        "INPUT: a table of any kind that training reads, one text a line, or a folder of texts. OUTPUT: the file to write. "
        "model.name=FOLDER: where the base is, if not where the adapter says; data.encoding, data.delimiter, "
        "data.quotes, data.header: how INPUT is written, if that is not found",
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
        help="the two names of the kaggle format's first line (default: the file's id column and the label column, or "
        "ID,Label where there are no ids)",
    )
    parser.add_argument(
        "--like", metavar="FILE", help="a sample submission, which decides columns, order and ids of the kaggle format"
    )
    parser.add_argument(
        "--empty",
        choices=["answer", "refuse"],
        default="answer",
        help="rows without text: answered as an empty text (the default), or refused",
    )
    parser.add_argument(
        "--top", type=int, metavar="K", help="the K most probable labels of each text, with probabilities"
    )
    parser.add_argument(
        "--engine",
        choices=["auto", "fast", "reference"],
        help="default: that of the training; auto is fast where it can",
    )
    parser.add_argument(
        "--calibrated", action="store_true", help="probabilities at the temperature fitted by rankwise calibrate"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where a prediction of more than 4,096 rows into OUTPUT was killed; the file is the same",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="label over Ray Data: a cluster's address, auto or local; OUTPUT is then a folder of Parquet files",
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Predict and say how many rows were written."""
    args.runs, args.input, args.output, words = _places(args.words)
    base, options = _base(words)
    several = len(args.runs) > 1 or args.top is not None
    if several:
        given = {"--kaggle-header": args.kaggle_header, "--like": args.like, "--ray": args.ray}
        for option, value in given.items():
            if value:
                raise UserError(f"{option} cannot apply to several runs, nor with --top")
    elif args.ray:
        return _over_ray(args, base)
    names = ("format", "text", "empty", "calibrated", "engine", "resume")
    shared = {name: getattr(args, name) for name in names} | {"options": options, "base": base}
    if several:
        from rankwise.inference.predict_many import predict_many

        outcome = predict_many(args.runs, args.input, args.output, top=args.top, **shared)
    else:
        from rankwise.inference.predict_file import predict_file

        header = {"kaggle_header": args.kaggle_header, "like": args.like}
        outcome = predict_file(args.runs[0], args.input, args.output, **header, **shared)
    for note in outcome["notes"]:
        print(f"note: {note}", file=sys.stderr)
    before = [f"{outcome['resumed_rows']:,} rows were answered before"] if outcome["resumed_rows"] else []
    written = f"{outcome['rows']:,} rows written to {args.output} ({outcome['texts_per_s']:.0f} texts/s)"
    return common.show(args, outcome, outcome["source"], *before, written)


def _places(words: list[str]) -> tuple[list[str], str, str, list[str]]:
    """The runs, the file to read, the file to write, and the keys."""
    keys = [word for word in words if word.partition("=")[0] in _KEYS or ("=" in word and not Path(word).exists())]
    places = [word for word in words if word not in keys]
    if len(places) < 3:
        missing = ("RUN", "INPUT", "OUTPUT")[len(places) :]
        raise UserError(f"{' and '.join(missing)} missing: expected RUN [RUN ...] INPUT OUTPUT")
    *runs, source, target = places
    return runs, source, target, keys


def _base(words: list[str]) -> tuple[str | None, list[str]]:
    """The base that is named on the command line, and how the input is written."""
    base = None
    options = []
    for word in words:
        key, _, value = word.partition("=")
        if key == "model.name" and value:
            base = value
        elif key.startswith("data."):
            options.append(word)
        else:
            raise UserError(
                f"'{word}' cannot change at prediction: only model.name and how the input is written may, the rest is "
                "the run's"
            )
    return base, options


def _over_ray(args: argparse.Namespace, base: str | None) -> int:
    """The same over a cluster, for more files than one machine cares to read."""
    if args.format not in (None, "parquet"):
        raise UserError(f"--format {args.format} cannot apply with --ray, which writes a folder of Parquet files")
    given = {
        "--kaggle-header": args.kaggle_header,
        "--like": args.like,
        "--empty refuse": args.empty == "refuse",
        "--resume": args.resume,
    }
    for option, value in given.items():
        if value:
            raise UserError(f"{option} cannot apply with --ray, which writes a folder of Parquet files")
    from rankwise.search import bulk

    rows = bulk.predict(
        args.runs[0], args.input, args.output, address=args.ray, text=args.text, calibrated=args.calibrated, base=base
    )
    return common.show(
        args, {"rows": rows, "output": args.output}, f"{rows:,} rows written to the folder {args.output}"
    )
