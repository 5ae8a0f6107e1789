"""Fine-tune under the budget: plan, check, train, save, prove that the saved file repeats the live model."""

from __future__ import annotations

import argparse

from rankwise.cli import common

EXAMPLE = (
    "rankwise train model.name=packaged:all-MiniLM-L6-v2 data.train=mine.csv budget.max_trainable=250k --out runs/mine"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_config_words(parser, required=True)
    parser.add_argument("--out", metavar="RUN", help="the run's folder (default: runs/MODEL-HASH)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of the run's folder")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Train and print what was reached."""
    from rankwise.machine.processes import this_process
    from rankwise.training.job import train

    source, overrides = common.source_and_overrides(args.words)
    trained = train(source or {}, overrides, out=args.out, resume=args.resume)
    if not this_process().is_main_process:
        return 0  # one of several processes of torchrun: the first one speaks for all
    return common.show(args, trained.result, common.summary(trained.path, trained.record))
