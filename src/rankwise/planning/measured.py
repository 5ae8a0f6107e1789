"""What was measured on this machine of a configuration's shape, kept among the caches: a plan says it again in no time."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import msgspec

from rankwise import __version__
from rankwise.config import Config, to_dict
from rankwise.errors import BudgetError, UserError
from rankwise.machine import caches, description
from rankwise.machine.isa import wanted
from rankwise.planning.forecast import Forecast, RunFigures, forecast
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
    """This machine's figures of one shape.

    single
        By tokens of the text.
    runs
        By the rows and the batch that were measured (`run_key`).
    """

    single: dict[str, Single] = msgspec.field(default_factory=dict)
    runs: dict[str, RunFigures] = msgspec.field(default_factory=dict)

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


def run_key(config: Config) -> str:
    """What a run's figures are kept by: the rows as they are configured and lie there, and the batch."""
    data = to_dict(config)["data"]
    places = [Path(place) for place in (data["train"], data["validation"], data["test"]) if isinstance(place, str)]
    states = [(str(place), place.stat().st_mtime_ns, place.stat().st_size) for place in places if place.is_file()]
    batches = [config.train.batch_size, config.train.eval_batch_size, config.train.objective]
    told = {name: value for name, value in data.items() if name != "num_labels"}
    return hashlib.blake2b(json.dumps([told, states, batches], default=str).encode(), digest_size=8).hexdigest()


def lines(plan: Plan, known: Measured) -> list[tuple[str, str]]:
    """What a plan says of this machine: as it was measured here, or how it would be."""
    return [*_run_lines(plan, known), *_single_lines(plan, known)]


def of_run(plan: Plan, known: Measured) -> Forecast | None:
    """What the plan's run will take, where its rows and its batch were measured here."""
    figures = known.runs.get(run_key(plan.config))
    return None if figures is None else forecast(plan.config, figures)


def _run_lines(plan: Plan, known: Measured) -> list[tuple[str, str]]:
    """Minutes and memory, where the rows and the batch were measured here."""
    told = of_run(plan, known)
    if told is None:
        return []
    figures = known.runs[run_key(plan.config)]
    return [
        (
            "forecast",
            f"{told.minutes:.1f} minutes for {told.steps:,} steps on {figures.rows:,} rows, peak memory {told.peak_mb:,.0f} MB; "
            f"by {figures.step_s:.3f} s a step, measured on this machine, {_date([figures.at])}",
        )
    ]


def _single_lines(plan: Plan, known: Measured) -> list[tuple[str, str]]:
    """What one text takes."""
    limit = plan.config.budget.max_ms
    of_limit = "" if limit is None else f"  of {limit:g} ms"
    if not known.single:
        return [] if limit is None else [("one text", f"not measured on this machine: --measure{of_limit}")]
    points = sorted((int(length), one.p50_ms) for length, one in known.single.items())
    shown = ", ".join(f"{ms:.2f} ms at {length} tokens" for length, ms in points)
    return [
        ("one text", f"{shown}{of_limit}; measured on this machine, {_date(one.at for one in known.single.values())}")
    ]


def _date(times: Iterable[float]) -> str:
    """When the newest was measured."""
    return datetime.datetime.fromtimestamp(max(times, default=0.0), datetime.timezone.utc).date().isoformat()


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
        "machine": [description.cpu(), description.cores()],
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "versions": [__version__, metadata.version("torch")],
    }
