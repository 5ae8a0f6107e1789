"""From labelled texts to a classifier in one command: columns, scope, rank, learning rate and steps are chosen to
fit a budget of parameters and of minutes, and the choice is explained.
"""

from __future__ import annotations

import argparse
import time

from rankwise.cli import common

EXAMPLE = "rankwise auto mine.csv --max-params 1M --max-minutes 15 --out searches/mine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a table (CSV, TSV, JSONL, Parquet, xlsx; also in gz or zip), a folder of class folders, a Hub name",
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help="what shall not be chosen: data.test=FILE, ...")
    parser.add_argument("--max-params", default="1M", metavar="N", help="trainable parameters allowed (default: 1M)")
    parser.add_argument("--max-minutes", type=float, default=15.0, metavar="M", help="minutes allowed (default: 15)")
    parser.add_argument("--max-mb", type=float, metavar="N", help="megabytes of what is shipped, the base not counted")
    parser.add_argument(
        "--max-ms", type=float, metavar="N", help="milliseconds one text of the median length may take on this machine"
    )
    parser.add_argument(
        "--models",
        metavar="A,B",
        help="bases that compete (default: packaged:all-MiniLM-L6-v2, and packaged:all-mpnet-base-v2 once it has been fetched)",
    )
    parser.add_argument(
        "--goal",
        default="accuracy",
        metavar="GOAL",
        help="what is chosen by: accuracy, macro_f1, recall@precision=0.9:CLASS, cost:FILE (default: accuracy)",
    )
    parser.add_argument("--out", metavar="DIR", help="the folder (default: searches/auto-NAME)")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the folder's search in what is left of its clock"
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Choose, train and explain."""
    started = time.time()
    from rankwise.search.auto import auto, folder_of

    record = auto(
        args.data,
        args.words,
        max_params=args.max_params,
        max_minutes=args.max_minutes,
        goal=args.goal,
        models=args.models,
        max_mb=args.max_mb,
        max_ms=args.max_ms,
        resume=args.resume,
        out=args.out,
        started=started,
    )
    said, folder = record["auto"]["explanation"], folder_of(args.data, args.out)
    shown = record["auto"].get("planned_lines") or 0 if common.is_one_screen() and not args.resume else 0
    goes_on = f"next      rankwise predict {folder} new.csv labels.csv  |  rankwise report {folder}"
    common.show(args, record, *said[shown:], goes_on)
    return 130 if record["status"] == "interrupted" else 0
