"""Search over any configuration key, never above the budget: sweeps, random, TPE, with successive halving on top.

SEARCH is a YAML file or a shipped search. Its folder holds one run a trial, the table in search.json, and all that
--resume needs; predict, evaluate and report take the folder for its winner.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise.cli import common
from rankwise.errors import UserError

if TYPE_CHECKING:
    from rankwise.search.sweep.workers import Workers

EXAMPLE = "rankwise search scope-sweep train.steps=60 --workers 2 --out searches/scopes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="*",
        metavar="SEARCH|key=value",
        help="a search file or a shipped search (scope-sweep), then overrides of its keys or of its base's",
    )
    parser.add_argument("--out", metavar="DIR", help="the search's folder (default: searches/NAME)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine (default: 1)")
    where.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster: its address, auto, or local")
    parser.add_argument("--resume", action="store_true", help="go on with the folder's search")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Search and print the table."""
    from rankwise import recipes
    from rankwise.records import SearchRecord
    from rankwise.records.record import of_tree
    from rankwise.records.search import COPY
    from rankwise.reporting import paper_table
    from rankwise.search.driver import search
    from rankwise.search.sweep import spec
    from rankwise.search.sweep.show import text

    source, overrides = common.source_and_overrides(args.words)
    if args.workers < 1:
        raise UserError(f"--workers must be at least 1, got {args.workers}")
    copy = None if args.out is None else Path(args.out) / COPY
    told = source or (copy if args.resume and copy is not None and copy.is_file() else None)
    resources = spec.load(told, overrides).resources if args.ray and told else spec.Resources()
    record = search(
        source, overrides, out=args.out, resume=args.resume, workers=_workers(args.workers, args.ray, resources)
    )
    if args.json:
        common.print_json(record)
    else:
        print(text(of_tree(SearchRecord, record), width=shutil.get_terminal_size((110, 24)).columns))
        if str(source) in recipes.table_names():
            folder = Path(args.out) if args.out else Path("searches") / str(source)
            print(f"\n{paper_table.load(str(source), folder).text()}")
    return 130 if record["status"] == "interrupted" else 0


def _workers(count: int, ray: str | None, resources: Any) -> Workers | None:
    if ray:
        from rankwise.search.sweep.ray_workers import RayWorkers

        return RayWorkers(ray, resources)
    if count > 1:
        from rankwise.search.sweep.workers import Processes

        return Processes(count)
    return None
