"""The page docs/reproduction.md, made of the result files of `reproduction.py`; no number in it is typed.

python benchmarks/reproduction_table.py
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
from reproduction import BASE, ON_BASE, ON_SMALL, SMALL

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "reproduction"
ANCHOR = "noppe-brandon"
INTRODUCTION = """# The papers' recipes, run again

Each recipe runs as it is shipped, on another encoder and fewer rows than its paper had. So the accuracies are not
the papers': what carries over is the order of the recipes, and how far apart they are on rows that none of them
chose by. Training and test rows are those of AG News that could be had ({train:,} and {test:,}); validation is held
out of train, and the test rows were scored once, when a run had ended.

What differs from the papers, and why it matters: they train 125 million frozen parameters on 120,000 rows, and 5e-5 is
a rate for fine-tuning all of them. On a small encoder with adapters alone, the recipes that keep that rate are still far
from done when their steps end; below the *floor* they say less than no encoder at all. The minutes were taken with as
many threads as are named below a table.

*against {anchor}*: the difference in test accuracy in points, the rows that only one of the two has right, and the
exact McNemar probability, corrected for the comparisons of one encoder (Holm). *floor*: TF-IDF and logistic
regression on the same rows.

Made by `python benchmarks/reproduction_table.py` of the files in `benchmarks/results/reproduction`.
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "reproduction.md")
    args = parser.parse_args()
    results = [files.read_json(file) for file in sorted(args.results.glob("*.json"))]
    if not results:
        raise SystemExit(f"{args.results} holds no results yet: run benchmarks/reproduction.py")
    files.write_text(args.page, page(results))
    print(f"{args.page}: {len(results)} runs")


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The whole page in Markdown."""
    first = results[0]
    rows = sum(first["data"][role]["rows"] for role in ("train", "validation"))
    parts = [INTRODUCTION.format(train=rows, test=first["test"]["examples"], anchor=ANCHOR)]
    for model in dict.fromkeys(result["model"] for result in results):
        mine = [result for result in results if result["model"] == model]
        parts += [f"## {model.removeprefix('packaged:')}", table(mine), *remarks(mine)]
    if not any(result["model"] == BASE for result in results):
        parts.append(f"## {BASE.removeprefix('packaged:')}\n\nNot run yet.")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """One encoder's runs, best first, the floor last."""
    ordered = sorted(results, key=lambda result: -result["test"]["accuracy"])
    against = comparisons(ordered)
    head = [
        "recipe", "trainable", "test accuracy, %", "95% interval", f"against {ANCHOR}",
        "validation chosen / last / peak, %", "minutes", "examples/s", "the paper reports",
    ]  # fmt: skip
    lines = [head, ["---", *["---:"] * 7, "---"]]
    for result in ordered:
        test, chosen = result["test"], result["validation"]
        low, high = test["accuracy_ci95"]
        three = (chosen["accuracy"], result["validation_last"]["accuracy"], result["validation_peak"])
        lines.append(
            [
                result["recipe"],
                f"{result['parameters']['trainable']:,}",
                percent(test["accuracy"]),
                f"{percent(low)} to {percent(high)}",
                against.get(result["recipe"], ""),
                " / ".join(map(percent, three)),
                f"{result['minutes']['train']:.1f}",
                f"{result['timing']['examples_per_s']:.0f}",
                result["reported"] or "",
            ]
        )
    of_all = floors(ordered)
    usual = max(of_all, key=lambda lowest: len(of_all[lowest]), default=None)
    for lowest, names in of_all.items():
        of = "" if lowest == usual else f" of {', '.join(names)}"
        lines.append([f"*floor{of}*", "", percent(lowest), *[""] * 6])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def floors(results: Sequence[Mapping[str, Any]]) -> dict[float, list[str]]:
    """The floors, highest first, and whose they are: recipes hold out other numbers of rows, and clean texts otherwise."""
    found: dict[float, list[str]] = {}
    for result in results:
        if "test" in result["floor"]:
            found.setdefault(result["floor"]["test"], []).append(result["recipe"])
    return dict(sorted(found.items(), reverse=True))


def comparisons(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Each run paired with the anchor on the same test rows."""
    anchor = next((result for result in results if result["recipe"] == ANCHOR), None)
    if anchor is None:
        return {}
    others = [result for result in results if result is not anchor]
    for other in others:
        if other["data"]["test"]["sha256"] != anchor["data"]["test"]["sha256"]:
            raise SystemExit(f"{other['recipe']} and {ANCHOR} were scored on different test rows")
    theirs = hits(anchor)
    only = [(int((hits(other) & ~theirs).sum()), int((theirs & ~hits(other)).sum())) for other in others]
    if not only:
        return {}
    corrected = paired.holm(paired.mcnemar([a for a, _ in only], [b for _, b in only]))
    return {
        other["recipe"]: f"{100 * (a - b) / len(theirs):+.2f} ({a}:{b}, {probability(p)})"
        for other, (a, b), p in zip(others, only, corrected, strict=True)
    }


def hits(result: Mapping[str, Any]) -> np.ndarray:
    """Which test rows a run has right. Shape: (rows,)"""
    packed = np.frombuffer(bytes.fromhex(result["hits"]), dtype=np.uint8)
    return np.unpackbits(packed, count=result["test"]["examples"]).astype(bool)


def remarks(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was run how, and what each run says of itself."""
    first = results[0]
    engine = ", ".join(sorted({result["engine"]["path"] for result in results}))
    by_machine: dict[str, list[str]] = {}
    for result in results:
        threads = int(result["environment"].get("threads") or 0)
        machine = f"{threads} thread{'s' if threads != 1 else ''} of {result['environment'].get('cpu')}"
        by_machine.setdefault(machine, []).append(result["recipe"])
    usual = max(by_machine, key=lambda machine: len(by_machine[machine]))
    others = [f"{', '.join(names)}: {name}, at least in part" for name, names in by_machine.items() if name != usual]
    shown = "; ".join([usual, *others])
    lines = [f"Engine: {engine}; {shown}."]
    wanted = ON_BASE if first["model"] == BASE else ON_SMALL if first["model"] == SMALL else ()
    missing = [name for name in wanted if name not in {result["recipe"] for result in results}]
    if missing:
        lines[0] += f" Not run yet: {', '.join(missing)}."
    lines += [f"- {result['recipe']}: {note}" for result in results for note in result["notes"]]
    return ["\n".join(lines[:1]), *(["\n".join(lines[1:])] if lines[1:] else [])]


def percent(value: float) -> str:
    """A share as percent."""
    return f"{100 * value:.2f}"


def probability(p: float) -> str:
    """A probability as it is read."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


if __name__ == "__main__":
    main()
