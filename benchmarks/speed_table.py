"""The tables of measured speed in README.md and docs/speed.md, from `rankwise bench`'s files.

python benchmarks/speed_table.py            writes them
python benchmarks/speed_table.py --check    exits 1 when a page says something else than the files

A page holds `<!-- speed: FILE -->`, the table, and `<!-- /speed -->`; FILE is a result's name without its ending, and
the variants may follow that the table is limited to. `<!-- cells: FILE -->` is the same for a file of cells.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankwise import files

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PAGES = (ROOT / "README.md", *(ROOT / "docs" / name for name in ("speed.md", "deploy.md", "ship.md")))
_TABLE = re.compile(r"(<!-- speed: ([\w.-]+)((?: [\w-]+)*) -->\n).*?(<!-- /speed -->)", re.DOTALL)
_CELLS = re.compile(r"(<!-- cells: ([\w.-]+) -->\n).*?(<!-- /cells -->)", re.DOTALL)
# Heading, key of a variant's row, and how it is written.
_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("examples/s", "examples_per_s", "{:.1f}"),
    ("times papers' way", "times_baseline", "{:.2f}"),
    ("by means", "times_baseline_mean", "{:.2f}"),
    ("share of products", "share_of_products", "{:.0%}"),
    ("of torch's products", "share_of_library_products", "{:.0%}"),
    ("p50 ms", "p50_ms", "{:.1f}"),
    ("p99 ms", "p99_ms", "{:.1f}"),
    ("peak MB", "peak_mb", "{:,}"),
    ("of papers' way", "memory_of_baseline", "{:.0%}"),
)
_SHARES = {"products": "share_of_products", "products-torch": "share_of_library_products"}

_CELL_COLUMNS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "serve_load": (
        ("requests", "requests", "{:,}"),
        ("lost", "lost", "{}"),
        ("wrong", "wrong", "{}"),
        ("a second", "requests_per_s", "{:.0f}"),
        ("p50 ms", "p50_ms", "{:.0f}"),
        ("p99 ms", "p99_ms", "{:.0f}"),
        ("MB at first", "memory_first_mb", "{:,.0f}"),
        ("MB at last", "memory_last_mb", "{:,.0f}"),
    ),
    "beside": (
        ("rankwise, examples/s", "engine", "{:.1f}"),
        ("papers' way", "papers", "{:.1f}"),
        ("bf16, grouped", "bf16-grouped", "{:.1f}"),
        ("times papers' way", "times_papers", "{:.1f}"),
        ("times the peer", "times_peer", "{:.1f}"),
    ),
    "many": (
        ("memory MB", "memory_mb", "{:,.0f}"),
        ("mixed texts/s", "mixed_texts_per_s", "{:,.0f}"),
        ("all answers of one text, p50 ms", "one_text_p50_ms", "{:.1f}"),
        ("p99 ms", "one_text_p99_ms", "{:.1f}"),
    ),
    "export_speed": (
        ("texts/s", "texts_per_s", "{:,.0f}"),
        ("times the engine in fp32", "times_fp32_engine", "{:.2f}"),
        ("same answer", "agreement", "{:.2%}"),
        ("accuracy", "accuracy", "{:.2%}"),
        ("points", "points", "{:+.2f}"),
        ("one text, p50 ms", "p50_ms", "{:.1f}"),
        ("p99 ms", "p99_ms", "{:.1f}"),
        ("bytes", "bytes", "{:,}"),
    ),
    "upper_third": (("trainable", "trainable", "{:,}"), ("test rows", "examples", "{:,}"), ("accuracy", "accuracy", "{:.2%}")),
}  # fmt: skip


def cells_table(name: str, result: Mapping[str, Any]) -> str:
    """The cells of a file in Markdown, those that have the columns."""
    columns = _CELL_COLUMNS[name]
    lines = [["", *(heading for heading, _, _ in columns)], ["---", *("---:" for _ in columns)]]
    lines += [
        [cell, *(form.format(row[key]) for _, key, form in columns)]
        for cell, row in result["cells"].items()
        if all(key in row for _, key, _ in columns)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def table(result: Mapping[str, Any], only: Sequence[str] = ()) -> str:
    """One measurement in Markdown, or some of its variants; a column that fewer than two of them have is left out, but a share of
    products where these have a row."""
    variants = {name: row for name, row in result["variants"].items() if not only or name in only}
    shares = {_SHARES[name] for name in _SHARES if name in variants}
    columns = [
        column for column in _COLUMNS if column[1] in shares or sum(column[1] in row for row in variants.values()) > 1
    ]
    if result["setting"]["batch_size"] > 1:  # a text's time is asked of texts that come alone
        columns = [column for column in columns if column[1] not in ("p50_ms", "p99_ms")]
    lines = [["variant", *(heading for heading, _, _ in columns)], ["---", *("---:" for _ in columns)]]
    for name, row in variants.items():
        cells = [form.format(row[key]) if key in row else "" for _, key, form in columns]
        lines.append([f"`{name}`: {row['about']}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with every table made anew."""

    def one(found: re.Match[str]) -> str:
        return found[1] + table(files.read_json(results / f"{found[2]}.json"), found[3].split()) + found[4]

    def of_cells(found: re.Match[str]) -> str:
        return found[1] + cells_table(found[2], files.read_json(results / f"{found[2]}.json")) + found[3]

    return _CELLS.sub(of_cells, _TABLE.sub(one, page))


def main() -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    stale = 0
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if before != after:
            stale += 1
            if not args.check:
                files.write_text(page, after)
            print(f"{page.name}: {'differs from the files' if args.check else 'written'}")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
