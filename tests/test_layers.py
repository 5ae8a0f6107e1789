"""Imports go one way, and light verbs stay light."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import rankwise
from rankwise.encoders import FAMILIES
from rankwise.methods import METHODS

ROOT = Path(rankwise.__file__).parent
# Each folder may import those before it, and itself.
ORDER = [
    "errors",
    "files",
    "deadline",
    "records",
    "machine",
    "scoring",
    "packaged",
    "recipes",
    "config.tree",
    "config.values",
    "encoders",
    "methods",
    "config",
    "engine.support",
    "planning",
    "data",
    "baselines",
    "engine",
    "models",
    "runs",
    "inference",
    "export",
    "serve",
    "training",
    "reporting",
    "estimator",
    "search.sweep",
    "search.clock",
    "search.after",
    "search.floors",
    "search.designs",
    "search.explained",
    "search.folds",
    "search",
    "bench",
    "cli",
]


def layer_of(module: str) -> int | None:
    names = module.split(".")[1:3]
    if not names:
        return None
    two, one = ".".join(names), names[0]
    return ORDER.index(two) if two in ORDER else ORDER.index(one) if one in ORDER else None


def imports_of(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("rankwise")}


FOLDERS = sorted(file.parent.name for file in ROOT.glob("*/__init__.py"))


def test_every_folder_has_its_place():
    assert set(FOLDERS) <= set(ORDER)


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_go_one_way(folder):
    upward = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for name in imports_of(file)
        if (layer := layer_of(name)) is not None and layer > (layer_of(module_of(file)) or 0)
    ]
    assert upward == []


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph_of(folder: str) -> dict[str, set[str]]:
    """Which of a folder's files each of them imports; those for type checking alone and inside functions too."""
    files = {module_of(file): file for file in (ROOT / folder).rglob("*.py") if file.name != "__init__.py"}
    return {name: (imports_of(file) & set(files)) - {name} for name, file in files.items()}


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """The files of a circle of imports; none when there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


KNOWN_CIRCLES: set[str] = set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_of_a_folder_import_each_other_in_no_circle(folder, request):
    if folder in KNOWN_CIRCLES:
        request.applymarker(pytest.mark.xfail(strict=True))
    assert circle_in(graph_of(folder)) == []


def test_nobody_asks_for_a_family_or_a_method_by_its_name():
    """What sets one apart is said in its own file, and asked of its object."""
    asked = []
    for file in sorted(ROOT.rglob("*.py")):
        if file.parent.name in ("encoders", "methods"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in FAMILIES:
                asked.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.value}")
            if isinstance(node, ast.Compare) and "method" in ast.unparse(node.left):
                words = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                asked += [f"{file.relative_to(ROOT)}:{node.lineno} {word}" for word in words & set(METHODS)]
    assert asked == []


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["plan", "model.name=roberta-base", "data.num_labels=4"], ["recipes", "list"]],
    ids=lambda words: words[0],
)
def test_light_verbs_import_nothing_heavy(arguments):
    code = f"""
import sys
from rankwise.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
heavy = [name for name in ("torch", "transformers", "peft", "pyarrow", "scipy", "datasets") if name in sys.modules]
sys.exit(", ".join(heavy) or 0)
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
