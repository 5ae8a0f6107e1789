"""Values that keys stand for: `250k` parameters, an alpha of `2r`."""

from __future__ import annotations

import re

from rankwise.config.tree import Config
from rankwise.errors import UserError

_SUFFIX = {"": 1, "k": 1_000, "m": 1_000_000}


def max_trainable(config: Config) -> int | None:
    """The budget as a number of parameters; None when lifted.

    Raises: UserError for words that are no number above zero.
    """
    value = config.budget.max_trainable
    return parse_count(value, "budget.max_trainable") if isinstance(value, str) else value


def max_bytes(config: Config) -> int | None:
    """The bytes that may be shipped; None for any number."""
    megabytes = config.budget.max_mb
    return None if megabytes is None else int(1e6 * megabytes)


def parse_count(text: str, key: str) -> int:
    """`250k`, `1M` or `1_000_000` as a whole number above zero.

    Raises: UserError for anything else; `key` names it in the error.
    """
    match = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*([kKmM]?)", text.strip())
    count = round(float(match[1].replace("_", "")) * _SUFFIX[match[2].lower()]) if match else 0
    if count <= 0:
        raise UserError(f"{key}: expected a number above zero such as 1_000_000, 250k or 1M, got {text!r}")
    return count


def alpha_of(alpha: float | str, rank: int) -> float:
    """The number alpha stands for at a rank: '2r' is twice the rank.

    Raises: UserError for anything but a number above zero or a multiple of the rank.
    """
    if not isinstance(alpha, str):
        return float(alpha)
    match = re.fullmatch(r"([0-9]*\.?[0-9]*)\s*r", alpha.strip())
    factor = float(match[1] or 1) if match and match[1] != "." else 0.0
    if factor <= 0:
        raise UserError(
            f"adapter.alpha: expected a number above zero or a multiple of the rank such as '2r', got {alpha!r}"
        )
    return factor * rank
