"""Write one HTML file about a run or a search: it opens offline and loads nothing."""

from __future__ import annotations

import argparse

from rankwise.cli import common

EXAMPLE = "rankwise report runs/mine --out mine.html --figures figures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN|SEARCH_DIR", help="a run's folder, or a search's")
    parser.add_argument("--out", metavar="FILE.html", help="the file to write (default: report.html in the folder)")
    parser.add_argument("--figures", metavar="DIR", help="also write every chart there, as SVG and PNG")
    parser.add_argument("--no-texts", action="store_true", help="show mistakes by their ids, without their texts")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from rankwise.reporting import report

    path = report(args.run, args.out, figures=args.figures, texts=not args.no_texts)
    return common.show(args, {"report": str(path)}, f"report: {path}")
