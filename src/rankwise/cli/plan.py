"""Exact trainable counts, the largest rank that fits, and the adapter's bytes: no torch, no weights, no network.

Without a rank or a scope it prints every scope against the largest rank that fits.
"""

from __future__ import annotations

import argparse
import sys

from rankwise import config as configuration
from rankwise.cli import common
from rankwise.planning.measured import Measured
from rankwise.planning.planned import Plan, as_lines

EXAMPLE = "rankwise plan model.name=roberta-base data.num_labels=4 adapter.scope=[value] adapter.rank=22"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_config_words(parser, required=False)
    parser.add_argument(
        "--measure",
        action="store_true",
        help="train and score for some seconds, forecast minutes and memory, and keep it for later plans",
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan; 2 when it is over budget, after printing it."""
    from rankwise import planning
    from rankwise.planning import measured

    tree = configuration.tree_of(*common.source_and_overrides(args.words))
    given = configuration.from_dict(tree)
    config = _with_classes(given)
    plan = planning.plan(config)
    known = _measured(plan, read_before=config is not given) if args.measure and plan.fits else measured.read(plan)
    is_open = not {"rank", "scope", "method"} & set(tree.get("adapter", {})) and config.budget.max_trainable is not None
    shown = "\n".join([plan.text(), *([as_lines(rows)] if (rows := measured.lines(plan, known)) else [])])
    if args.json:
        told = measured.of_run(plan, known)
        more = {"measured": known.to_dict(), "forecast": None if told is None else told.to_dict()} | (
            {"options": planning.options(config)} if is_open else {}
        )
        common.print_json(plan.to_dict() | more)
    elif is_open:
        print(planning.table(config), end="\n\n")
        print(shown)
    else:
        print(shown)
    planning.require_fit(plan)
    measured.require_ms(plan, known)
    return 0


def _measured(plan: Plan, *, read_before: bool) -> Measured:
    """This machine's figures of a plan's shape, taken now: of a run on its rows, where they are here, and of one text.

    read_before
        Whether the rows were read for their classes.
    """
    from rankwise.data.opening import is_here
    from rankwise.models import tokenizer_of
    from rankwise.search.clock.forecast import measure_run
    from rankwise.training import latency

    if plan.config.data.train is not None and is_here(plan.config.data.train):
        measure_run(plan, read_before=read_before)
    return latency.measure(plan, tokenizer_of(plan.config.model))


def _with_classes(config: configuration.Config) -> configuration.Config:
    """The configuration with the classes of its training file counted, where it does not say; how it was read is said."""
    if config.data.num_labels is not None or config.data.train is None:
        return config
    from rankwise.data.opening import is_here

    if not is_here(config.data.train):
        return config
    from rankwise import data

    read = data.load(config.data, roles=("train",), audit=False)
    for line in read.report.lines():
        print(line, file=sys.stderr)
    return configuration.replaced(config, "data", num_labels=len(read.label_names))
