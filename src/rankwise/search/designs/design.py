"""The designs that `auto` lets compete: where adapters sit, how fast they learn and how the head starts."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rankwise import config as configuration
from rankwise import planning
from rankwise.config import Config, Keys
from rankwise.errors import UserError
from rankwise.records.record import Tree

_RATE, _RATE_STEPS = 1e-3, 600
_LOWEST_RATE, _HIGHEST_RATE = 3e-4, 3e-3
"""at twice the highest, every site at rank 24 diverged (LOG.md)"""

ALL: Keys = {"adapter.scope": "all"}
ATTENTION: Keys = {"adapter.scope": ["query", "key", "value", "attention_output"]}
QUERY_VALUE: Keys = {"adapter.scope": ["query", "value"]}
FITTED: Keys = {"head.probe_first": True}
"""the head fitted on frozen features first: 6.8 points in 60 steps on BBC News (LOG.md)"""


def usual_rate(steps: int) -> float:
    """The learning rate to start from for a run of so many steps: the fewer, the higher.

    1e-3 at 600 steps, by the square root of their number: 3e-3 won over lower ones at 60 steps; near a thousand about
    1e-3 did better than 5e-4, in one run each (LOG.md). Two significant digits.
    """
    rate = _RATE * (_RATE_STEPS / steps) ** 0.5
    return float(f"{min(max(rate, _LOWEST_RATE), _HIGHEST_RATE):.1e}")


def designs_for(config: Config, fixed: set[str], labels: int, steps: int) -> list[Keys]:
    """What competes, likeliest first, without what the user fixed, what is over budget and what comes to the same.

    The learning rate decides most, so it varies most, around the usual one for so many steps; then where the adapters
    sit, always at the largest rank that fits. Most start from a fitted head.

    fixed
        The keys that the user has set.
    labels
        How many classes there are.
    steps
        Of a whole run.

    Returns: the configuration keys of each design.
    Raises: UserError when the budget fits none.
    """
    layers = planning.encoder_of(config.model).layers
    top = {"adapter.layers": list(range(layers // 2, layers))}
    usual = usual_rate(steps)

    def at(share: float) -> dict[str, float]:
        return {"train.learning_rate": float(f"{min(share * usual, _HIGHEST_RATE):.1e}")}

    proposals: list[Keys] = [
        {**ALL, **at(1), **FITTED},
        {**ALL, **at(2), **FITTED},
        {**ALL, **at(0.5), **FITTED},
        {**ATTENTION, **at(1), **FITTED},
        {**ALL, **at(1)},
        {**QUERY_VALUE, **at(2), **FITTED},
        {**ALL, **at(1), **FITTED, "head.kind": "output"},
        {**ATTENTION, **at(2), **FITTED, "adapter.dropout": 0.0},
        {**ALL, **top, **at(1), **FITTED},
        {**ALL, **at(2)},
        {**QUERY_VALUE, **at(1), **FITTED},
        {**ALL, **at(3), **FITTED},
        {**ATTENTION, **at(0.5), **FITTED, "adapter.dropout": 0.0},
        {**ALL, **at(0.2), **FITTED},
    ]
    kept: dict[str, Keys] = {}
    for proposal in proposals:
        design = {key: value for key, value in proposal.items() if key not in fixed}
        try:
            tree = configuration.with_keys(configuration.to_dict(config), design)
            planned = planning.plan(configuration.from_dict(tree), labels)
            planning.require_fit(planned)
        except UserError:
            continue
        same = (
            msgspec.structs.replace(planned.config, head=config.head) if planned.groups["head"] == 0 else planned.config
        )
        kept.setdefault(f"{configuration.config_hash(same)} {planned.groups}", design)
    if not kept:
        raise UserError("no design fits the budget: raise --max-params, or see  rankwise plan  for what fits")
    return list(kept.values())


def how_many(config: Config, fixed: set[str], labels: int) -> Callable[[int], int]:
    """How many designs compete, by the steps of a whole run. Raises, once it is asked: as `designs_for`."""
    return lambda steps: len(designs_for(config, fixed, labels, steps))


def has_room(tree: Tree, fixed: set[str], labels: int) -> bool:
    """Whether anything that is trained keeps a tree's budget, such as what words beside it leave."""
    try:
        return bool(designs_for(configuration.from_dict(tree), fixed, labels, 1))
    except UserError:
        return False
