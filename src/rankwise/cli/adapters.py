"""Folders of adapters, Rankwise's and PEFT's.

rankwise adapters convert DIR    make adapter_model.safetensors of an adapter_model.bin, without running what is in it
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rankwise.cli import common

EXAMPLE = "rankwise adapters convert downloads/my-adapter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("action", choices=list(_ACTIONS))
    parser.add_argument("folder", metavar="DIR", help="an adapter's folder")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    _ACTIONS[args.action](args)
    return 0


def _convert(args: argparse.Namespace) -> None:
    from rankwise.inference.convert import convert

    outcome = convert(args.folder)
    if args.json:
        common.print_json(outcome)
    else:
        print(f"{outcome['tensors']:,} tensors written to {outcome['file']} ({outcome['bytes']:,} bytes)")


_ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {"convert": _convert}
