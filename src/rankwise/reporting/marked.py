"""Numbers on a page, each marked with the place it was read from, so that a test can hold it to its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

_FORMATS = {
    "count": "{:,.0f}",
    "general": "{:.4g}",
    "decimal": "{:.4f}",
    "score": "{:.3f}",
    "seconds": "{:,.1f}",
    "megabytes": "{:,.0f}",
    "tiny": "{:.2g}",
    "points": "{:+.2f}",
}


class Numbers:
    """Formats what stands at a place of the facts: `number("result", "metrics", "test", "accuracy", as_="percent")`."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts

    def __call__(self, *place: Any, as_: str = "general") -> Markup:
        """An element with the formatted number, its full value, and its place as a JSON pointer.

        Parts of the place that are tuples stand for their own parts.
        """
        parts = tuple(part for one in place for part in (one if isinstance(one, tuple) else (one,)))
        value: Any = self.facts
        for part in parts:
            value = value[part]
        return Markup('<data class="n" value="{}" data-at="{}" data-as="{}">{}</data>').format(
            "" if value is None else repr(value), pointer(parts), as_, escape(formatted(value, as_))
        )


def formatted(value: Any, as_: str) -> str:
    """A number in words of one of the formats; a dash for None."""
    if value is None:
        return "–"
    if as_ == "percent":
        return f"{100 * value:.2f}%"
    if as_ == "hundredths":
        return f"{100 * value:.0f}"
    if as_ == "percent1":
        return f"{100 * value:.1f}%"
    return _FORMATS[as_].format(value)


def pointer(place: tuple[Any, ...]) -> str:
    """The place as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)
