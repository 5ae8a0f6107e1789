"""What a user did wrong, told in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """A mistake the user can mend: says what was expected, what came, and what to do.

    The command line prints the message on stderr without a traceback and exits with code 2.
    """


class BudgetError(UserError):
    """The plan trains more parameters than the budget allows; raised before any weight is read."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` for the known word nearest to a misspelt one, else an empty string."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean '{matches[0]}'?" if matches else ""


def listed(names: Sequence[object], most: int, mark: str = ", ") -> str:
    """The first names with a mark between, and dots where there are more."""
    return mark.join(map(str, names[:most])) + (", ..." if len(names) > most else "")


def counted(count: int, what: str) -> str:
    """So many of something: `1 row`, `2,000 rows`."""
    return f"{count:,} {what}{'s' if count > 1 else ''}"


def reason_of(error: BaseException) -> str:
    """What an error of another program says, in one line of at most 200 characters; its kind where it says nothing."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def missing_extra(package: str, extra: str) -> UserError:
    """The error for an optional dependency that is absent, with the exact install line."""
    return UserError(f"this needs the package '{package}': install it with  pip install 'rankwise[{extra}]'")
