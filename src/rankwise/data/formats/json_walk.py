"""A JSON document read piece by piece, so that one of many gigabytes needs no more memory than its largest row.

The standard library's scanner, which is C, decodes one value after the other out of a window of the text. ijson does the
same and was not taken: it refuses NaN and halves of characters, which data sets hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from rankwise.data.opening import MAX_LINE_CHARS
from rankwise.errors import UserError

_WINDOW = 1 << 20
_SPACE = " \t\n\r"
_AFTER = _SPACE + ",]}:"
_TAIL = 16
"""Characters before a window's end in which a fault may be that the text goes on behind it: a name such as -Infinity."""


class Walk:
    """A place in a JSON text, which goes forward.

    Attributes:
        name: what to call the text in messages.
        passed: characters that are behind it and forgotten.
    """

    def __init__(self, text: TextIO, name: str) -> None:
        self._text = text
        self.name = name
        self._window = ""
        self._place = 0
        self.passed = 0
        self._is_all = False
        self._decode = json.JSONDecoder().raw_decode

    def next(self) -> str:
        """The next character that is no space; an empty string at the end."""
        while True:
            while self._place < len(self._window) and self._window[self._place] in _SPACE:
                self._place += 1
            if self._place < len(self._window) or not self._more():
                return self._window[self._place : self._place + 1]

    def fields(self) -> Iterator[str]:
        """The keys of the object that begins here; each one's value must be walked over before the next."""
        self._take("{")
        for _ in self._members("}"):
            key = self.value()
            if not isinstance(key, str):
                raise self._fault("a key that is a string")
            self._take(":")
            yield key

    def value(self) -> Any:
        """The whole value that begins here."""
        self.next()
        while True:
            try:
                value, end = self._decode(self._window, self._place)
            except json.JSONDecodeError as error:
                is_cut = error.pos >= len(self._window) - _TAIL or error.msg.startswith("Unterminated string")
                if not is_cut or not self._more():
                    raise UserError(
                        f"{self.name} is not JSON: {error.msg} at character {self.passed + error.pos:,}"
                    ) from error
                continue
            except RecursionError as error:
                raise UserError(f"{self.name} is not a table: its values are nested too deeply") from error
            # A number that the window cuts is one too: only what may follow a value ends it.
            after = self._window[end : end + 1]
            if (after and after in _AFTER) or not self._more():
                self._place = end
                return value

    def skip(self) -> None:
        """Go over the value that begins here, whatever its size."""
        if self.next() == "[":
            for _ in self.rows():
                pass
        elif self.next() == "{":
            for _ in self.fields():
                self.skip()
        else:
            self.value()

    def rows(self) -> Iterator[Any]:
        """The elements of the array that begins here, one at a time."""
        self._take("[")
        for _ in self._members("]"):
            yield self.value()

    def end(self) -> None:
        """Raise `UserError` where something follows."""
        if self.next():
            raise self._fault("its end")

    def _members(self, closing: str) -> Iterator[None]:
        """Stops before each member; it must be walked over before the next."""
        if self.next() != closing:
            yield
        while self.next() != closing:
            self._take(",")
            yield
        self._take(closing)

    def _take(self, mark: str) -> None:
        if self.next() != mark:
            raise self._fault(f"'{mark}'")
        self._place += 1

    def _fault(self, expected: str) -> UserError:
        came = self.next()
        return UserError(
            f"{self.name} is not JSON: expected {expected} at character {self.passed + self._place:,}, "
            f"{'it has ' + repr(came) if came else 'where it ends'}"
        )

    def _more(self) -> bool:
        """Read on, what is walked over forgotten; False where there is nothing more."""
        if len(self._window) - self._place > MAX_LINE_CHARS:
            raise UserError(
                f"{self.name} has a value of more than {MAX_LINE_CHARS:,} characters at character "
                f"{self.passed + self._place:,}: write the rows as JSON Lines, one object a line"
            )
        # As much again as is open, so that a long value is decoded few times.
        piece = "" if self._is_all else self._text.read(max(_WINDOW, len(self._window) - self._place))
        self._is_all = not piece
        if not piece:
            return False
        self.passed += self._place
        self._window = self._window[self._place :] + piece
        self._place = 0
        return True
