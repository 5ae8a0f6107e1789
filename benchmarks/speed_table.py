"""The table of measured speed in the documentation, from `rankwise bench`'s files: `python benchmarks/speed_table.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
HEADINGS = ("measurement", "variant", "examples/s", "times papers' way", "share of products", "peak MB", "memory")


def rows(path: Path) -> list[tuple[str, ...]]:
    """A file's variants, the first with the measurement's name."""
    result = json.loads(path.read_text(encoding="utf-8"))
    made = []
    for number, (variant, row) in enumerate(result["variants"].items()):
        made.append(
            (
                path.stem if number == 0 else "",
                variant,
                f"{row['examples_per_s']:.1f}",
                f"{row['times_baseline']:.2f}" if "times_baseline" in row else "",
                f"{row['share_of_products']:.0%}" if "share_of_products" in row else "",
                f"{row['peak_mb']:,}",
                f"{row['memory_of_baseline']:.0%}" if "memory_of_baseline" in row else "",
            )
        )
    return made


def main() -> None:
    """Print the table in Markdown."""
    paths = [path for kind in ("train", "predict") for path in sorted(RESULTS.glob(f"{kind}-*.json"))]
    if not paths:
        sys.exit(f"no measurement in {RESULTS}: run rankwise bench first")
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *(row for path in paths for row in rows(path))]
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))


if __name__ == "__main__":
    main()
