"""Write a run for other programs: plain transformers, ONNX, OpenVINO, or static vectors; proven in a fresh process.

Success is said only after the artefact, loaded by its target's library alone, has repeated the run's logits.
"""

from __future__ import annotations

import argparse
import sys

from rankwise.cli import common
from rankwise.export.targets import TARGETS, Options

EXAMPLE = "rankwise export runs/mine --to onnx --out served/mine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder, a search's (its winner), or a PEFT adapter folder")
    told = "; ".join(f"{name}: {target.summary}" for name, target in TARGETS.items())
    parser.add_argument("--to", required=True, metavar="TARGET", help=told)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write, whole or not at all")
    parser.add_argument(
        "--accept-loss", action="store_true", help="onnx-int8: write it though it answers otherwise too often"
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Export and say what was proven."""
    from rankwise.export.command import export

    options = Options(accept_loss=args.accept_loss, say=lambda line: print(line, file=sys.stderr))
    outcome = export(args.run, args.to, args.out, options)
    size = f"{outcome['out']}: {outcome['target']}, {outcome['bytes'] / 1e6:,.1f} MB"
    return common.show(args, outcome, size, *(f"  {fact}" for fact in outcome["facts"]))
