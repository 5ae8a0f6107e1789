"""docs/real-sets.md says what the result files say."""

import importlib.util
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_page_is_what_the_files_make_it():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("real_sets_table", BENCHMARKS / "real_sets_table.py")
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
    finally:
        sys.path.remove(str(BENCHMARKS))
    there = script.page(script.cells_of(script.RESULTS))
    assert script.PAGE.read_text(encoding="utf-8") == there, "run python benchmarks/real_sets_table.py"
