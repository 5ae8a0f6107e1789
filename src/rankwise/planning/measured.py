"""What was measured on this machine of a configuration's shape, kept among the caches: a plan says it again in no time."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from importlib import metadata
from pathlib import Path

import msgspec

from rankwise import __version__
from rankwise.config import to_dict
from rankwise.errors import BudgetError, UserError
from rankwise.machine import caches, description
from rankwise.machine.isa import wanted
from rankwise.planning.planned import Plan
from rankwise.records import Record
from rankwise.records import record as records
from rankwise.records.record import Tree

_SPEEDS = ("method", "scope", "dora", "bias", "layers", "virtual_tokens")
"""keys of the adapter that its speed depends on, beside its ranks"""


class Single(Record, kw_only=True):
    """Milliseconds of one text of a length, by the median of calls and by 99 in 100; `at` is `time.time()`."""

    p50_ms: float
    p99_ms: float
    at: float = 0.0


class Measured(Record, kw_only=True):
    """This machine's figures of one shape. single: by tokens of the text."""

    single: dict[str, Single] = msgspec.field(default_factory=dict)

    @property
    def date(self) -> str:
        """When the newest was measured."""
        newest = max((one.at for one in self.single.values()), default=0.0)
        return datetime.datetime.fromtimestamp(newest, datetime.timezone.utc).date().isoformat()

    def single_ms(self, tokens: int) -> float | None:
        """Milliseconds of one text, between the lengths that were measured; None beyond them."""
        points = sorted((int(length), one.p50_ms) for length, one in self.single.items())
        below = [point for point in points if point[0] <= tokens]
        above = [point for point in points if point[0] >= tokens]
        if not below or not above:
            return None
        (low, least), (high, most) = below[-1], above[0]
        return least if high == low else least + (most - least) * (tokens - low) / (high - low)


def read(plan: Plan) -> Measured:
    """What is known of a plan's shape here; nothing where nothing was measured."""
    place = _place(plan)
    if not place.is_file():
        return Measured()
    try:
        return records.read(place, Measured)
    except UserError:  # damaged: it is measured again
        return Measured()


def write(plan: Plan, measured: Measured) -> None:
    """Keep what is known."""
    with caches.optional():
        records.write(_place(plan), measured)


def lines(plan: Plan, known: Measured) -> list[tuple[str, str]]:
    """What a plan says of one text: as it was measured here, or how it would be."""
    limit = plan.config.budget.max_ms
    of_limit = "" if limit is None else f"  of {limit:g} ms"
    if not known.single:
        return [] if limit is None else [("one text", f"not measured on this machine: --measure{of_limit}")]
    points = sorted((int(length), one.p50_ms) for length, one in known.single.items())
    shown = ", ".join(f"{ms:.2f} ms at {length} tokens" for length, ms in points)
    return [("one text", f"{shown}{of_limit}; measured on this machine, {known.date}")]


def require_ms(plan: Plan, known: Measured) -> None:
    """Refuse a length of texts at which one takes more than `budget.max_ms`, where that is known here.

    Raises: BudgetError.
    """
    limit, length = plan.config.budget.max_ms, plan.config.data.max_length
    least = min((one.p50_ms for one in known.single.values()), default=None)
    if limit is None or least is None:
        return
    if least > limit:
        raise BudgetError(
            f"one text takes {least:.2f} ms on this machine at the least, over budget.max_ms of {limit:g}: raise it, or "
            "name a smaller base with model.name"
        )
    forecast = None if length is None else known.single_ms(length)
    if forecast is not None and forecast > limit:
        low = min(int(tokens) for tokens in known.single)
        fits = max(tokens for tokens in range(low, length or low) if (known.single_ms(tokens) or limit) <= limit)
        raise BudgetError(
            f"one text of {length} tokens takes {forecast:.2f} ms on this machine, over budget.max_ms of {limit:g}: the "
            f"longest data.max_length that fits is {fits}"
        )


def _place(plan: Plan) -> Path:
    text = json.dumps(_about(plan), sort_keys=True, default=str)
    return caches.cache("measured") / f"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.json"


def _about(plan: Plan) -> Tree:
    """All that speed depends on beside the texts."""
    encoder, isa = plan.encoder, wanted()
    tree = to_dict(plan.config)
    return {
        "shape": [encoder.model_type, repr(encoder.dims), encoder.depth, encoder.pooling, plan.num_labels],
        "adapter": [{key: tree["adapter"][key] for key in _SPEEDS}, plan.ranks, tree["head"]["kind"]],
        "arithmetic": [plan.engine, plan.config.model.precision, None if isa is None else isa.name],
        "machine": [
            description.cpu(),
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        ],
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "versions": [__version__, metadata.version("torch")],
    }
