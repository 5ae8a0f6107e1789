"""The shipped configurations, one YAML file each, and the tables of the papers as search files."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
_TABLES = _FOLDER / "tables"


def names() -> list[str]:
    """Names of the shipped recipes, in alphabetical order."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def path(name: str) -> Path | None:
    """The file of a shipped recipe, None when there is no such recipe."""
    file = _FOLDER / f"{name}.yaml"
    return file if name in names() else None


def table_names() -> list[str]:
    """Names of the shipped tables, in alphabetical order."""
    return sorted(file.stem for file in _TABLES.glob("*.yaml"))


def table_path(name: str) -> Path | None:
    """The search file of a shipped table, None when there is no such table."""
    file = _TABLES / f"{name}.yaml"
    return file if name in table_names() else None


def summary(name: str) -> str:
    """The recipe's first line, which says in one sentence what it is and whose."""
    return first_line(_FOLDER / f"{name}.yaml")


def first_line(file: Path) -> str:
    """The comment a shipped file begins with."""
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
