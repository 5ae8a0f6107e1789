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
    """The verb's arguments."""
    parser.add_argument("action", choices=["list", "show", "copy", "tables", "table"])
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the recipe, table or search")
    parser.add_argument("file", metavar="FILE|DIR", nargs="?", type=Path, help="where to copy it, or where runs are")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    if args.action == "list":
        _list(as_json=args.json)
    elif args.action == "tables":
        _tables(as_json=args.json)
    elif args.name is None:
        raise UserError(f"which recipe? rankwise recipes {args.action} takes one of {', '.join(recipes.names())}")
    elif args.action == "table":
        _table(args.name, args.file, as_json=args.json)
    elif args.action == "show":
        _show(args.name, as_json=args.json)
    elif args.file is None:
        raise UserError(f"copy it where? rankwise recipes copy {args.name} FILE")
    else:
        _copy(_path(args.name), args.file, as_json=args.json)
    return 0


def _list(*, as_json: bool) -> None:
    from rankwise import planning

    rows = []
    for name in recipes.names():
        plan = planning.plan(configuration.load(name))
        rows.append({"name": name, "trainable": plan.trainable, "summary": recipes.summary(name)})
    if as_json:
        common.print_json({"recipes": rows})
        return
    for row in rows:
        print(f"{row['name']:<18} {row['trainable']:>9}  {row['summary']}")


def _tables(*, as_json: bool) -> None:
    rows = []
    for name in recipes.table_names():
        file = recipes.table_path(name)
        assert file is not None
        rows.append({"name": name, "summary": recipes.first_line(file)})
    if as_json:
        common.print_json({"tables": rows})
        return
    for row in rows:
        print(f"{row['name']:<28} {row['summary']}")


def _table(name: str, folder: Path | None, *, as_json: bool) -> None:
    from rankwise.reporting import paper_table

    table = paper_table.load(name, folder)
    if as_json:
        common.print_json(table)
    else:
        print(table.text())


def _path(name: str) -> Path:
    found = recipes.path(name) or recipes.search_path(name)
    if found is None:
        known = [*recipes.names(), *recipes.search_names()]
        raise UserError(f"no recipe '{name}'{nearest(name, known) or '; rankwise recipes list shows them'}")
    return found


def _show(name: str, *, as_json: bool) -> None:
    text = _path(name).read_text(encoding="utf-8")
    if as_json:
        common.print_json({"name": name, "yaml": text})
    else:
        print(text, end="")


def _copy(source: Path, target: Path, *, as_json: bool) -> None:
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError as error:
        raise UserError(f"{target} exists already: choose another name") from error
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error
    if as_json:
        common.print_json({"file": str(target)})
        return
    verb = "train" if source.stem in recipes.names() else "search"
    print(f"{target}: edit it, then  rankwise {verb} {target}")
