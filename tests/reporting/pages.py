"""Reading a report back: its numbers with the places they name, and the digits that name none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

# What stands outside the marked numbers by its nature: drawings, code, the texts of rows, styles.
_EXEMPT = {"svg", "style", "script", "code", "pre", "title"}
_VOID = {"meta", "link", "br", "input", "img", "hr"}


@dataclass
class Number:
    """A marked number: its full value, where it says it is from, its format, what is shown."""

    value: str
    at: str
    as_: str
    shown: str


class Page(HTMLParser):
    """`numbers` are the marked ones, `stray` the texts with digits that are neither marked nor exempt."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.numbers: list[Number] = []
        self.stray: list[str] = []
        self._open: list[tuple[str, bool]] = []
        self.feed(html)
        assert self._open == [], "elements left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if "data-at" in values:
            self.numbers.append(Number(values["value"] or "", values["data-at"] or "", values["data-as"] or "", ""))
        if tag not in _VOID:
            self._open.append((tag, tag in _EXEMPT or "data-at" in values or "data-words" in values))

    def handle_endtag(self, tag: str) -> None:
        assert [name for name, _ in self._open[-1:]] == [tag], f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] == "data":
            self.numbers[-1].shown += data
        elif not any(exempt for _, exempt in self._open) and re.search(r"\d", data):
            self.stray.append(data.strip())


def resolve(facts: Any, pointer: str) -> Any:
    """The value at a JSON pointer."""
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        facts = facts[int(part)] if isinstance(facts, list) else facts[part]
    return facts


def shown_value(number: Number) -> tuple[float, float]:
    """What a reader takes the shown text for, and half a unit of its last digit."""
    text = number.shown.replace(",", "").replace("+", "")
    scale = 0.01 if text.endswith("%") or number.as_ == "hundredths" else 1.0
    digits, _, exponent = text.rstrip("%").partition("e")
    decimals = len(digits.partition(".")[2])
    power = 10.0 ** int(exponent or 0)
    return float(digits) * power * scale, 0.5000001 * 10.0**-decimals * power * scale
