"""The page docs/real-sets.md, made of the result files of `real_sets.py`; no number in it is typed.

python benchmarks/real_sets_table.py            writes it
python benchmarks/real_sets_table.py --check    exits 1 when the page says something else than the files
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rankwise import files
from rankwise.scoring import paired

sys.path.insert(0, str(Path(__file__).parent))
from real_peers import PEERS
from real_sets import AUTO, RESULTS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "real-sets.md"
Cell = Mapping[str, Any]
TITLE = "# Sets that `auto` had not seen"
INTRODUCTION = f"""{TITLE}

`rankwise auto` beside what an engineer would try first: the same training rows, the same clock of {{minutes:g}} minutes, the same
encoder ({{base}}), each in a process of its own. No contestant saw a test label, and every cell's answers were scored once.
Measured with {{threads}} threads of {{cpu}}.

*above it* is `auto`'s test accuracy less the other's, in points with a paired 95% bootstrap interval; beside it the rows that
`auto` alone has right and those that the other alone has right, and McNemar's exact probability, corrected for all
comparisons of this page, over sets and contestants (Holm). With several seeds, accuracy and macro F1 are means (SD in brackets), and the pairs are those
of the first seed. *minutes* run from the start of the process to its end.

Made by `python benchmarks/real_sets_table.py` of the files in `benchmarks/results/real_sets`, which
`python benchmarks/real_sets.py DIR` writes for any folder of sets.
"""


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    after = page(cells_of(args.results))
    same = args.page.is_file() and args.page.read_text(encoding="utf-8") == after
    if not same:
        if not args.check:
            files.write_text(args.page, after)
        print(f"{args.page.name}: {'differs from the files' if args.check else 'written'}")
    return 1 if args.check and not same else 0


def cells_of(results: Path) -> list[Cell]:
    """The result files."""
    return [files.read_json(file) for file in sorted(results.glob("*.json"))]


def page(cells: Sequence[Cell]) -> str:
    """The whole page in Markdown."""
    if not cells:
        return f"{TITLE}\n\nNot run yet: `python benchmarks/real_sets.py DIR`, then `python benchmarks/real_sets_table.py`.\n"
    first = next((cell for cell in cells if cell["peer"] == AUTO), cells[0])
    parts = [
        INTRODUCTION.format(
            minutes=first["minutes"],
            base=first["base"].removeprefix("packaged:"),
            threads=first["environment"]["threads"],
            cpu=first["environment"]["cpu"],
        )
    ]
    names = list(dict.fromkeys(cell["set"] for cell in cells))
    parts.append(summary(cells, names))
    against = comparisons(cells)
    for name in names:
        mine = [cell for cell in cells if cell["set"] == name]
        about = mine[0]
        sizes = f"{about['train_rows']:,} rows to train on, {about['classes']} classes, {about['examples']:,} test rows"
        parts += [f"## {name}", f"{sizes}.", table(mine, against.get(name, {})), *remarks(mine)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def peers_of(cells: Sequence[Cell]) -> list[str]:
    """The contestants that have a result, in the order of the page."""
    return [peer for peer in (AUTO, *PEERS) if any(cell["peer"] == peer for cell in cells)]


def summary(cells: Sequence[Cell], names: Sequence[str]) -> str:
    """Test accuracy (macro F1) in %, a set a line."""
    peers = peers_of(cells)
    titles = {cell["peer"]: cell["title"] for cell in cells}
    lines = [["set", *(titles[peer] for peer in peers)], ["---", *("---:" for _ in peers)]]
    for name in names:
        line = [name]
        for peer in peers:
            mine = [cell for cell in cells if cell["set"] == name and cell["peer"] == peer]
            line.append(f"{mean(mine, 'accuracy')} ({mean(mine, 'macro_f1')})" if mine else "")
        lines.append(line)
    return markdown(lines)


def table(cells: Sequence[Cell], against: Mapping[str, tuple[str, str]]) -> str:
    """One set: `auto` first, then the others, each with what `auto` is above it.

    against
        Of `comparisons`.
    """
    head = ["", "accuracy, %", "95% interval", "macro F1, %", "minutes", "`auto` above it", "p (Holm)"]
    lines = [head, ["---", *("---:" for _ in head[1:])]]
    for peer in peers_of(cells):
        mine = [cell for cell in cells if cell["peer"] == peer]
        low, high = mine[0]["accuracy_ci95"]
        minutes = np.mean([cell["seconds"] for cell in mine]) / 60
        spread = [f"{spread_of(mine, key)}" for key in ("accuracy", "macro_f1")]
        lines.append(
            [
                mine[0]["title"],
                f"{mean(mine, 'accuracy')}{spread[0]}",
                f"{percent(low)} to {percent(high)}",
                f"{mean(mine, 'macro_f1')}{spread[1]}",
                f"{minutes:.1f}",
                *against.get(peer, ("", "")),
            ]
        )
    return markdown(lines)


def comparisons(cells: Sequence[Cell]) -> dict[str, dict[str, tuple[str, str]]]:
    """By set and contestant what `auto` is above it on the rows of the first seed: points with their interval, and the
    probability, corrected over all of them."""
    counts: dict[tuple[str, str], tuple[int, int, int]] = {}
    for name in dict.fromkeys(cell["set"] for cell in cells):
        mine = [cell for cell in cells if cell["set"] == name]
        ours = next((cell for cell in mine if cell["peer"] == AUTO), None)
        for peer in peers_of(mine) if ours is not None else []:
            theirs = next(cell for cell in mine if cell["peer"] == peer)
            if theirs["test_sha256"] != ours["test_sha256"]:
                raise SystemExit(f"{name}: the contestants were scored on different test rows")
            right, other = hits(ours), hits(theirs)
            if peer != AUTO:
                counts[name, peer] = int((other & ~right).sum()), int((right & ~other).sum()), len(right)
    if not counts:
        return {}
    others, alone, _ = zip(*counts.values(), strict=True)
    corrected = paired.holm(paired.mcnemar(others, alone))
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for ((name, peer), (other, own, rows)), p in zip(counts.items(), corrected, strict=True):
        low, high = paired.bootstrap_difference(other, own, rows)
        points = f"{100 * (own - other) / rows:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}; {own}:{other})"
        found.setdefault(name, {})[peer] = (points, probability(float(p)))
    return found


def hits(cell: Cell) -> np.ndarray:
    """Which test rows a contestant has right. Shape: (rows,)"""
    packed = np.frombuffer(bytes.fromhex(cell["hits"]), dtype=np.uint8)
    return np.unpackbits(packed, count=cell["examples"]).astype(bool)


def remarks(cells: Sequence[Cell]) -> list[str]:
    """What contestants say of what they did, and who is missing."""
    missing = [PEERS[peer].title for peer in PEERS if not any(cell["peer"] == peer for cell in cells)]
    said = [f"- {cell['title']}: {'; '.join(cell['notes'])}" for cell in cells if cell["notes"]]
    lines = ["\n".join(dict.fromkeys(said))] if said else []
    return [*lines, *([f"Not run: {', '.join(missing)}."] if missing else [])]


def mean(cells: Sequence[Cell], key: str) -> str:
    """Over seeds, in percent."""
    return percent(float(np.mean([cell[key] for cell in cells])))


def spread_of(cells: Sequence[Cell], key: str) -> str:
    """The SD over seeds in brackets, nothing for one."""
    return f" ({percent(float(np.std([cell[key] for cell in cells], ddof=1)))})" if len(cells) > 1 else ""


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Cells as a table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(value: float) -> str:
    """A share as percent."""
    return f"{100 * value:.1f}"


def probability(p: float) -> str:
    """A probability as it is read."""
    return f"{p:.1e}" if p < 0.001 else f"{p:.3f}"


if __name__ == "__main__":
    sys.exit(main())
