"""The class names of an adapter that another program saved: PEFT keeps none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankwise import files

_MAPPINGS = ("label_mapping.json", "label_map.json", "labels.json", "id2label.json", "label2id.json")
"""what people save names in, beside an adapter"""


def names_of(count: int, adapter: Path, base: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """The names of an adapter's classes in the order of its logits: those of a `config.json` or a mapping beside it,
    else those of its base, else numbers.

    count
        Classes of the adapter's head.
    base
        The base's `config.json`.

    Returns: the names, and what a reader should know of them.
    """
    beside = [adapter / name for name in ("config.json", *_MAPPINGS) if (adapter / name).is_file()]
    for content in (*map(files.read_json, beside), base):
        names = _names(content, count)
        if names is not None:
            return names, None
    numbers = [str(label) for label in range(count)]
    return numbers, f"nothing in {adapter} or its base names the classes: they are numbered 0 to {count - 1}"


def _names(content: Any, count: int) -> list[str] | None:
    """The names in a mapping one way or the other, or in a list, when they are as many as the classes and somebody chose
    them: LABEL_0 is what transformers makes up."""
    if isinstance(content, Mapping):
        for key in ("id2label", "label2id"):
            if isinstance(content.get(key), Mapping):
                return _names(content[key], count)
        by_number = _by_number(content)
        names = [by_number[place] for place in sorted(by_number)] if set(by_number) == set(range(count)) else None
    else:
        names = content if isinstance(content, list) and all(isinstance(name, str) for name in content) else None
    if names is None or len(names) != count or len(set(names)) != count:
        return None
    return None if all(name == f"LABEL_{place}" for place, name in enumerate(names)) else names


def _by_number(content: Mapping[str, Any]) -> dict[int, str]:
    """Number to name, of a mapping of either to the other; empty where it is neither."""
    for pairs in (content.items(), ((value, key) for key, value in content.items())):
        try:
            by_number = {int(number): name for number, name in pairs}
        except (TypeError, ValueError, OverflowError):
            continue
        if all(isinstance(name, str) for name in by_number.values()):
            return by_number
    return {}
