"""The space of a search: axes, their values, and the configuration that a point stands for.

A point maps axis names to values. Values that are no plain number or word (scopes, dependent sets) go by a label,
so that points read well and fit any storage.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rankwise import config as configuration
from rankwise.config import Keys
from rankwise.errors import UserError, nearest
from rankwise.records.record import Tree
from rankwise.search.sweep.spec import Range, Search

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Scalar = str | int | float | bool | None
Point = dict[str, Scalar]
_MOST_STEPS = 10_000


@dataclass(frozen=True)
class Axis:
    """One thing that is varied: `settings` gives the configuration keys of each choice; a range has none."""

    name: str
    settings: dict[Scalar, Keys] = field(default_factory=dict)
    range: Range | None = None
    whole: bool = False
    """a range of whole numbers"""

    @property
    def choices(self) -> list[Scalar]:
        """The values in the order of the file.

        Raises: UserError for a range without steps, which has no list of values.
        """
        if self.range is not None:
            raise UserError(
                f"axes.{self.name}: a range without 'step' cannot be listed: give step, list the values, "
                "or use strategy random or tpe"
            )
        return list(self.settings)

    @property
    def count(self) -> int | None:
        """How many values; None for a range."""
        return None if self.range is not None else len(self.settings)

    @property
    def distribution(self) -> BaseDistribution:
        """The axis in Optuna's terms."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.range is None:
            return CategoricalDistribution(list(self.settings))
        if self.whole:
            return IntDistribution(int(self.range.low), int(self.range.high), log=self.range.log)
        return FloatDistribution(self.range.low, self.range.high, log=self.range.log)

    @property
    def sets(self) -> set[str]:
        """Every configuration key that some choice sets."""
        return {self.name} if self.range is not None else {key for keys in self.settings.values() for key in keys}

    def keys(self, value: Scalar) -> Keys:
        """The configuration keys that a value sets."""
        return {self.name: value} if self.range is not None else self.settings[value]

    def edge(self, value: Scalar) -> str | None:
        """Which end of the axis a value lies at: lowest, highest, or None when inside, unordered or zero.

        Zero is where an amount ends, not where a range happens to: dropout cannot be lower.
        """
        ends = self._ends()
        if ends is None or isinstance(value, bool) or not isinstance(value, int | float) or value == 0:
            return None
        low, high = ends
        near = 0.05  # of the range counts as its end: a sampler never draws the end itself
        if self.range is not None and self.range.log:
            place = math.log(value / low) / math.log(high / low)
        else:
            place = (value - low) / (high - low)
        if self.range is None:
            near = 0.0
        return "lowest" if place <= near else "highest" if place >= 1 - near else None

    def _ends(self) -> tuple[float, float] | None:
        if self.range is not None:
            return self.range.low, self.range.high
        numbers = [value for value in self.settings if isinstance(value, int | float) and not isinstance(value, bool)]
        return (min(numbers), max(numbers)) if len(numbers) == len(self.settings) > 1 else None


@dataclass(frozen=True)
class Space:
    """All axes over a base configuration."""

    base: Tree
    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, search: Search) -> Space:
        """The space of a search file.

        Raises: UserError for unknown keys, empty axes, values that read alike, and a key that two axes set.
        """
        assert isinstance(search.base, dict)
        axes = tuple(_axis(name, values) for name, values in search.axes.items())
        owners: dict[str, str] = {}
        for axis in axes:
            for key in axis.sets:
                other = owners.setdefault(key, axis.name)
                if other != axis.name:
                    raise UserError(f"axes.{other} and axes.{axis.name} both set {key}: leave it to one of them")
        return cls(search.base, axes)

    def axis(self, name: str) -> Axis:
        """The axis of a name."""
        return next(axis for axis in self.axes if axis.name == name)

    def value(self, point: Mapping[str, Scalar], axis: Axis) -> Scalar:
        """An axis's value at a point: the point's own, else the base's where the axis is one key."""
        if axis.name in point or axis.sets != {axis.name}:
            return point.get(axis.name)
        node: Any = configuration.to_dict(configuration.from_dict(self.base))
        for part in axis.name.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return _label(node)

    def tree(self, point: Mapping[str, Scalar]) -> Tree:
        """The configuration tree of a point: the base with the point's keys set."""
        keys = {key: setting for name, value in point.items() for key, setting in self.axis(name).keys(value).items()}
        return configuration.with_keys(self.base, keys)

    def every_point(self) -> Iterator[Point]:
        """The full product, the last axis varying fastest."""
        for values in itertools.product(*(axis.choices for axis in self.axes)):
            yield dict(zip((axis.name for axis in self.axes), values, strict=True))

    @property
    def size(self) -> int | None:
        """Points in all; None when an axis is a range."""
        counts = [axis.count for axis in self.axes]
        return None if None in counts else math.prod(count for count in counts if count is not None)


def _axis(name: str, values: list[Any] | Range) -> Axis:
    known = {key for key, _, _ in configuration.every_key()}
    sections = {key.rpartition(".")[0] for key in known} - {""}
    if isinstance(values, Range):
        _require_key(name, known)
        return _range(name, values)
    if not values:
        raise UserError(f"axes.{name} is empty: give it values")
    if name in known or name in sections:
        settings = [(_label(value), {name: value}) for value in values]
    else:
        settings = [(_label(value), _dependent(name, value, known)) for value in values]
    labels = [label for label, _ in settings]
    repeated = next((label for place, label in enumerate(labels) if label in labels[:place]), None)
    if repeated is not None:
        raise UserError(f"axes.{name} holds {repeated!r} twice: keep one")
    return Axis(name, dict(settings))


def _dependent(name: str, value: Any, known: set[str]) -> Keys:
    """A choice that sets several keys at once."""
    if not isinstance(value, Mapping):
        hint = nearest(name, known)
        raise UserError(
            f"axes.{name}: there is no configuration key '{name}'{hint}; an axis of another name lists mappings of "
            "keys that change together, such as {train.optimizer: sgd, train.learning_rate: 0.05}"
        )
    for key in value:
        _require_key(str(key), known)
    return dict(value)


def _require_key(key: str, known: set[str]) -> None:
    if key not in known:
        raise UserError(f"axes: unknown configuration key '{key}'{nearest(key, known)}")


def _range(name: str, values: Range) -> Axis:
    if not values.low < values.high:
        raise UserError(f"axes.{name}: low must be below high, got {values.low:g} and {values.high:g}")
    if values.log and values.low <= 0:
        raise UserError(f"axes.{name}: a log range starts above zero, got {values.low:g}")
    whole = values.low == int(values.low) and values.high == int(values.high) and _is_whole(name)
    if values.step is None:
        return Axis(name, range=values, whole=whole)
    if values.step <= (1 if values.log else 0):
        raise UserError(f"axes.{name}: step must be above {1 if values.log else 0}, got {values.step:g}")
    numbers: list[Scalar] = []
    for place in range(_MOST_STEPS):
        number = values.low * values.step**place if values.log else values.low + values.step * place
        if number > values.high * (1 + 1e-9):
            break
        numbers.append(round(number) if whole else float(f"{number:.6g}"))
    return Axis(name, {number: {name: number} for number in numbers})


def _is_whole(name: str) -> bool:
    """Whether a configuration key takes whole numbers: a fraction is refused there."""
    try:
        configuration.from_dict(configuration.with_keys({}, {name: 1.5}))
    except UserError:
        return True
    return False


def _label(value: Any) -> Scalar:
    """A value as a word that reads well in a table."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_label(inner)}" for key, inner in value.items()) or "{}"
    return "+".join(str(_label(inner)) for inner in value) or "[]"
