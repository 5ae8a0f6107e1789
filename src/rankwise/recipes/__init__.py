"""The shipped configurations, one YAML file each, and searches: ready ones, and the tables of the papers."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
_TABLES, _SEARCHES = _FOLDER / "tables", _FOLDER / "searches"


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


def search_names() -> list[str]:
    """Names of the shipped searches, the papers' tables among them, in alphabetical order."""
    return sorted([*(file.stem for file in _SEARCHES.glob("*.yaml")), *table_names()])


def search_path(name: str) -> Path | None:
    """The file of a shipped search, None when there is no such search."""
    file = _SEARCHES / f"{name}.yaml"
    return table_path(name) or (file if name in search_names() else None)


def summary(name: str) -> str:
    """The recipe's first line, which says in one sentence what it is and whose."""
    return first_line(_FOLDER / f"{name}.yaml")


def first_line(file: Path) -> str:
    """The comment a shipped file begins with."""
    return file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
