"""The README's map of the folders is the truth."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.is_file(), reason="README.md is not beside the tests")


def mapped() -> tuple[set[str], set[str]]:
    """Names under src/rankwise, and at the top, that the map shows."""
    block = re.search(r"```\nsrc/rankwise/\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    lines = block[1].splitlines()
    inside = {line.split()[0].rstrip("/") for line in lines if line.startswith("  ")}
    return inside, {line.split()[0].rstrip("/") for line in lines if line and not line.startswith(" ")}


def test_every_folder_of_the_package_is_on_the_map():
    inside, top = mapped()
    package = ROOT / "src" / "rankwise"
    folders = {path.name for path in package.iterdir() if (path / "__init__.py").is_file()}
    assert {name for name in inside if not name.endswith(".py")} == folders
    assert {name for name in inside if not (package / name).exists()} == set()
    assert {name for name in top if not (ROOT / name).is_dir()} == set()
