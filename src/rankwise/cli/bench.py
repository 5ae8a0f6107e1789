"""Measure training or prediction beside a peer, alternating, in one call."""

from __future__ import annotations

import argparse

EXAMPLE = "rankwise bench train --data mine.parquet --model packaged:all-MiniLM-L6-v2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from rankwise import bench

    bench.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print and write the result."""
    from rankwise import bench

    code: int = bench.run(args)
    return code
