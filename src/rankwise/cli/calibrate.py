"""Fit a temperature on a run's validation rows, so that its probabilities mean what they say; no prediction changes."""

from __future__ import annotations

import argparse

from rankwise.cli import common

EXAMPLE = "rankwise calibrate runs/mine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder, or a search's (its winner)")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Fit, keep and print."""
    from rankwise.inference.calibrate import calibrate

    found = calibrate(args.run)
    lines = [
        f"temperature {found.temperature:.4f}, fitted on {found.rows:,} validation rows and kept with the adapter",
        f"there: loss {found.loss_before:.4f} -> {found.loss_after:.4f}, "
        f"calibration error {found.ece_before:.4f} -> {found.ece_after:.4f}",
    ]
    if found.at_bound:
        lines.append("note: it lies at the end of the range searched; these rows are too few or too easy to fit one")
    return common.show(args, found.to_dict(), *lines)
