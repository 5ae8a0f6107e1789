"""The shipped configurations, and the tables of the papers as search files: list, show, or copy one to edit.

rankwise recipes list                the recipes with their exact counts
rankwise recipes show NAME           a recipe, a table, or another search (scope-sweep, probe-first)
rankwise recipes copy NAME FILE
rankwise recipes tables              the tables; run one with  rankwise search NAME --out DIR
rankwise recipes table NAME [DIR]    the paper's numbers beside those of the runs in DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rankwise import config as configuration
from rankwise import recipes
from rankwise.cli import common
from rankwise.errors import UserError, nearest

EXAMPLE = "rankwise recipes copy noppe-brandon mine.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["list", "show", "copy", "tables", "table"])
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the recipe, table or search")
    parser.add_argument("file", metavar="FILE|DIR", nargs="?", type=Path, help="where to copy it, or where runs are")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    if args.action == "list":
        return _list(args)
    if args.action == "tables":
        return _tables(args)
    if args.name is None:
        raise UserError(f"which recipe? rankwise recipes {args.action} takes one of {', '.join(recipes.names())}")
    if args.action == "table":
        from rankwise.reporting import paper_table

        table = paper_table.load(args.name, args.file)
        return common.show(args, table, table.text())
    if args.action == "copy":
        return _copy(args)
    text = _path(args.name).read_text(encoding="utf-8")
    return common.show(args, {"name": args.name, "yaml": text}, text.removesuffix("\n"))


def _list(args: argparse.Namespace) -> int:
    from rankwise import planning

    rows = []
    for name in recipes.names():
        plan = planning.plan(configuration.load(name))
        rows.append({"name": name, "trainable": plan.trainable, "summary": recipes.summary(name)})
    lines = [f"{row['name']:<18} {row['trainable']:>9}  {row['summary']}" for row in rows]
    return common.show(args, {"recipes": rows}, *lines)


def _tables(args: argparse.Namespace) -> int:
    rows = []
    for name in recipes.table_names():
        file = recipes.table_path(name)
        assert file is not None
        rows.append({"name": name, "summary": recipes.first_line(file)})
    return common.show(args, {"tables": rows}, *(f"{row['name']:<28} {row['summary']}" for row in rows))


def _path(name: str) -> Path:
    found = recipes.path(name) or recipes.search_path(name)
    if found is None:
        known = [*recipes.names(), *recipes.search_names()]
        raise UserError(f"no recipe '{name}'{nearest(name, known) or '; rankwise recipes list shows them'}")
    return found


def _copy(args: argparse.Namespace) -> int:
    if args.file is None:
        raise UserError(f"copy it where? rankwise recipes copy {args.name} FILE")
    source, target = _path(args.name), args.file
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError as error:
        raise UserError(f"{target} exists already: choose another name") from error
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error
    verb = "train" if source.stem in recipes.names() else "search"
    return common.show(args, {"file": str(target)}, f"{target}: edit it, then  rankwise {verb} {target}")
