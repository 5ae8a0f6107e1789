"""The tables of measured speed say what the files of `rankwise bench` say."""

import importlib.util
import re
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "speed_table.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("speed_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_what_the_files_make_them(script):
    for page in script.PAGES:
        text = page.read_text(encoding="utf-8")
        assert "<!-- speed: " in text or "<!-- cells: " in text
        assert script.filled(text) == text, f"{page.name}: run python benchmarks/speed_table.py"


def test_a_changed_number_is_seen(script):
    page = script.PAGES[1].read_text(encoding="utf-8")
    changed = re.sub(r"\| \d+\.\d \|", "| 99.9 |", page, count=1)
    assert script.filled(changed) == page != changed
    page = (script.ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert script.filled(page.replace("| 20,000 |", "| 20,001 |")) == page
