"""What several verbs share: configuration words, the JSON switch, printing."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec

from rankwise import config as configuration
from rankwise.errors import UserError
from rankwise.records import Result


def add_config_words(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """The positional RECIPE|CONFIG and overrides."""
    parser.add_argument(
        "words",
        nargs="+" if required else "*",
        metavar="RECIPE|CONFIG|key=value",
        help="a shipped recipe or a YAML file, then overrides such as adapter.rank=8",
    )
    parser.epilog = f"{parser.epilog or ''}\n\nkeys:\n{key_help()}"


def add_json(parser: argparse.ArgumentParser) -> None:
    """The --json switch."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else there")


def source_and_overrides(words: list[str]) -> tuple[str | None, list[str]]:
    """The recipe or file among the words, and the overrides."""
    sources = [word for word in words if not is_override(word)]
    if len(sources) > 1:
        raise UserError(
            f"'{sources[1]}' is neither an override (key=value) nor the configuration, which is '{sources[0]}'"
        )
    return (sources[0] if sources else None), [word for word in words if is_override(word)]


def is_override(word: str) -> bool:
    """Whether a word is `key=value`, and not a path that holds an `=` (runs/lr=1e-3/config.yaml)."""
    key, equals, _ = word.partition("=")
    if not equals or key.split(".")[0] in configuration.Config.__struct_fields__:
        return bool(equals)
    is_path = "." not in key and re.search(r"/|\.[A-Za-z]\w*$", word)  # of a file that is yet to be written
    return re.fullmatch(r"[A-Za-z_][\w.-]*", key) is not None and not is_path and not Path(word).exists()


def key_help() -> str:
    """Every configuration key with its default, its help and the words it may be."""
    lines = []
    for key, text, default in configuration.every_key():
        words = configuration.choices(key)
        told = f"{text} ({', '.join(words)})" if len(words) > 1 else text
        lines += [
            f"  {key} = {json.dumps(default, ensure_ascii=False)}",
            *textwrap.wrap(told, 74, initial_indent=" " * 6, subsequent_indent=" " * 6),
        ]
    return "\n".join(lines)


def print_json(value: Any) -> None:
    """One JSON object on stdout: plain values, or a dataclass or struct of them."""
    print(json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2))


def show(args: argparse.Namespace, value: Any, *lines: str) -> int:
    """A result as people read it, or with --json as it is; returns the exit code."""
    if args.json:
        print_json(value)
    else:
        print(*lines, sep="\n")
    return 0


def is_one_screen() -> bool:
    """Whether results and what is said on the way go to the same place, such as a terminal."""
    try:
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (OSError, ValueError):  # not a file at all, or closed
        return False


def summary(path: Path, result: Result) -> str:
    """What a finished run reached, and the commands to go on with."""
    lines = []
    chosen, last = result.metrics.validation, result.metrics.validation_last
    if chosen is not None and last is not None:
        low, high = chosen.accuracy_ci95
        lines.append(
            f"validation accuracy {chosen.accuracy:.4f} (95% interval {low:.4f} to {high:.4f}, "
            f"{chosen.examples:,} rows) at step {chosen.step}; at the last step {last.accuracy:.4f}"
        )
    if chosen is not None and chosen.folds is not None:
        low, high = chosen.accuracy_ci95
        lines.append(
            f"accuracy {chosen.accuracy:.4f} (95% interval {low:.4f} to {high:.4f}) of {chosen.examples:,} rows in "
            f"{chosen.folds} folds, each scored by a run without it; this run is fitted on all {result.data['train'].rows:,}"
        )
    decision = result.decision
    if decision is not None:
        reached = "" if decision.value is None else f", which came to {decision.value:.4f} there"
        lines.append(f"answers are decided for {decision.goal}, fitted on {decision.rows:,} validation rows{reached}")
    if result.latency is not None:
        from rankwise.inference.latency import in_words

        lines.append(in_words(result.latency, None))
    lines += [f"note: {note}" for note in result.notes]
    timing = result.timing
    lines.append(
        f"{timing.steps:,} steps in {timing.train_s:.0f} s ({timing.examples_per_s or 0:.1f} examples/s), "
        f"evaluation {timing.eval_s:.0f} s, peak memory {result.memory.peak_mb:,.0f} MB"
    )
    lines.append(f"run: {path}  (the reloaded adapter repeats the live model)")
    rows = "" if "test" in result.data else " data.test=held_out.csv"
    lines.append(f"next: rankwise evaluate {path}{rows}  |  rankwise predict {path} new.csv predictions.csv")
    return "\n".join(lines)
