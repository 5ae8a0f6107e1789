"""Folders of adapters, Rankwise's and PEFT's.

rankwise adapters list DIR                      which adapters there are in a folder and below
rankwise adapters info ADAPTER                  what one holds, and whether it fits its base
rankwise adapters merge ADAPTER ADAPTER --out DIR   one of several: weighted, ties or dare
rankwise adapters convert DIR    make adapter_model.safetensors of an adapter_model.bin, without running what is in it
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from rankwise.cli import common
from rankwise.errors import UserError

EXAMPLE = "rankwise adapters merge runs/first runs/second --out merged --method ties"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=list(_ACTIONS))
    parser.add_argument("folders", metavar="DIR", nargs="+", help="an adapter's folder, or a run's")
    parser.add_argument("--out", metavar="DIR", help="merge: the folder to write")
    parser.add_argument("--method", default="weighted", help="merge: weighted (default), ties or dare")
    parser.add_argument("--weights", metavar="W,W,...", help="merge: one an adapter (default: equal, summing to one)")
    parser.add_argument("--density", type=float, default=0.5, help="merge: share of numbers that ties and dare keep")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    if args.action != "merge" and len(args.folders) != 1:
        raise UserError(f"adapters {args.action} takes one folder, {len(args.folders)} came")
    return _ACTIONS[args.action](args)


def _convert(args: argparse.Namespace) -> int:
    from rankwise.inference.convert import convert

    outcome = convert(args.folders[0])
    said = f"{outcome['tensors']:,} tensors written to {outcome['file']} ({outcome['bytes']:,} bytes)"
    return common.show(args, outcome, said)


def _list(args: argparse.Namespace) -> int:
    from rankwise.inference.tools import found_in

    adapters = found_in(args.folders[0])
    lines = [f"{one['folder']}: {one['unreadable'] if 'unreadable' in one else _line(one)}" for one in adapters]
    count = f"{len(adapters)} adapter{'s' if len(adapters) != 1 else ''}"
    return common.show(args, {"adapters": adapters}, *lines, count)


def _info(args: argparse.Namespace) -> int:
    from rankwise.data.report import kept_in_words
    from rankwise.inference.tools import info

    told = info(args.folders[0])
    numbers = (
        f"{told['update_numbers']:,} numbers in updates of {told['layers']} layers, {told['other_numbers']:,} others"
    )
    if told["fits"]:
        kept = kept_in_words(told["max_tokens"], told["truncation"])
        fits = f"labels: {', '.join(told['labels'])}\nreads {kept}; it fits its base"
    else:
        fits = f"it does not fit its base: {told['reason']}"
    return common.show(args, told, f"{told['folder']}: {_line(told)}", numbers, fits)


def _line(told: Mapping[str, Any]) -> str:
    kind = "DORA" if told["dora"] else told["kind"]
    rank = f" of rank {told['rank']}" if told["rank"] else ""
    classes = f", {told['classes']} classes" if told["classes"] else ""
    return f"{kind}{rank} for {told['base']}{classes}, {told['bytes']:,} bytes"


def _merge(args: argparse.Namespace) -> int:
    from rankwise.inference.tools import merge

    if not args.out:
        raise UserError("adapters merge needs --out DIR, the folder to write")
    try:
        weights = [float(word) for word in args.weights.split(",")] if args.weights else None
    except ValueError as error:
        raise UserError(f"--weights {args.weights}: expected numbers with commas between") from error
    outcome = merge(args.folders, args.out, method=args.method, weights=weights, density=args.density)
    what = f"{len(args.folders)} adapters ({outcome['method']}), rank {outcome['rank']}, {outcome['bytes']:,} bytes"
    return common.show(args, outcome, f"{outcome['out']}: {what}")


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "info": _info,
    "merge": _merge,
    "convert": _convert,
}
