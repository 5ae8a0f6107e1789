"""Put a run's adapter on the Hub and read it back; --dry-run shows every file and byte and asks the Hub nothing."""

from __future__ import annotations

import argparse

from rankwise.cli import common

EXAMPLE = "rankwise share runs/mine me/my-classifier --dry-run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder, a search's (its winner), or a PEFT adapter folder")
    parser.add_argument("name", metavar="NAME", help="on the Hub: user/name")
    parser.add_argument("--dry-run", action="store_true", help="say what would be uploaded and stop")
    parser.add_argument("--private", action="store_true", help="for those alone whom you let in")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Share and say what went."""
    from rankwise.export.share import share

    told = share(args.run, args.name, dry_run=args.dry_run, private=args.private)
    lines = [f"{size:>12,}  {name}" for name, size in told["files"].items()]
    lines.append(f"{told['bytes']:>12,}  bytes {'would go' if args.dry_run else 'went'} to {args.name}")
    lines += [f"note: {note}" for note in told["notes"]]
    if not args.dry_run:
        lines.append(f"{told['address']} at {told['commit']}: read back, it answers as the adapter here")
    return common.show(args, told, *lines)
