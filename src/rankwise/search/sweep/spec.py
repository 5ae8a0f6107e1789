"""The search file: what is varied, how it is walked, and how trials are judged.

A search file is checked as a whole before anything runs, and is saved with its base written out, so that the
copy in the search's folder runs again as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from rankwise import config as configuration
from rankwise import recipes
from rankwise.config import PositiveInt, Section
from rankwise.errors import UserError, nearest
from rankwise.records.record import Tree
from rankwise.scoring.goals import PLAIN, goal_of

StrategyName = Literal["one_at_a_time", "grid", "factorial", "random", "tpe"]
HalvingKind = Literal["successive", "hyperband"]


class Range(Section, frozen=True):
    """Numbers between two ends, both included.

    With `step` it is the list low, low + step, ...; with `step` and `log`, low, low * step, ...
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None


Axis = list[Any] | Range


class Strategy(Section, frozen=True):
    """How the space is walked."""

    name: StrategyName = "factorial"
    trials: PositiveInt | None = None
    """trials to start (grid, random, tpe); every point when left out, 20 for random and tpe"""
    seed: Annotated[int, Meta(ge=0)] = 0
    batch: PositiveInt | None = None
    """trials that tpe proposes together before it looks at their scores; fixed, so that a search repeats"""


class Halving(Section, frozen=True):
    """Successive halving (Jamieson and Talwalkar 2016), or Hyperband (Li et al. 2018) over several starts.

    Of the trials at a rung one in `factor` goes on, for `factor` times as many steps; the last of `rungs` rungs
    is the whole run.
    """

    kind: HalvingKind = "successive"
    factor: Annotated[int, Meta(ge=2)] = 3
    rungs: Annotated[int, Meta(ge=2)] = 3
    least: PositiveInt = 1
    """trials that go on from every rung at least: with several whole runs the search ends by their final scores, and a
    rung may come earlier for it"""
    within: str | None = None
    """an axis whose values take turns at every rung: the best trial of each goes on, then the second best of each. For what
    changes how fast a run begins: low learning rates lag behind high ones at first, and may win"""
    by: Literal["loss", "metric"] | None = None
    """what a rung is judged by: the validation loss there, or the search's metric at the best evaluation so far; null
    is the loss, unless an axis changes what the loss says"""


class Resources(Section, frozen=True):
    """What one trial takes of a Ray cluster."""

    cpus: Annotated[float, Meta(gt=0)] = 1.0
    gpus: Annotated[float, Meta(ge=0)] = 0.0


class Search(Section, frozen=True):
    """A whole search."""

    base: str | Tree
    axes: dict[str, Axis]
    constraints: list[str] = msgspec.field(default_factory=list)
    strategy: Strategy = Strategy()
    halving: Halving | None = None
    seeds: PositiveInt = 1
    """runs of each finalist, with train.seed counted up from the base's"""
    finalists: PositiveInt = 3
    metric: str = "accuracy"
    """the goal that trials are chosen by, and are trained for: `scoring.goals`"""
    storage: str | None = None
    """database URL or journal file (.journal) of Optuna; SQLite in the search's folder when left out"""
    resources: Resources = Resources()
    paper: Tree | None = None
    """a paper's own numbers for these points (rankwise recipes table); nothing is computed from them"""


def load(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Search:
    """The checked search of a YAML file, a shipped search's name or a dict, its base written out.

    overrides
        `key=value` words: keys of the search file, or dotted configuration keys that change its base.

    Raises: UserError for anything unknown or impossible.
    """
    tree, here = _read(source)
    own, of_base = _sort(overrides)
    for word in own:
        key, _, value = word.partition("=")
        parsed = configuration.parse_yaml(value, f"the value of {key}")
        if key.startswith("axes."):
            tree.setdefault("axes", {})[key.removeprefix("axes.")] = parsed
        else:
            configuration.set_key(tree, key, parsed)
    _check_names(tree)
    try:
        search = msgspec.convert(configuration.suited(tree, Search), Search)
    except msgspec.ValidationError as error:
        raise UserError(_axis_error(tree) or configuration.readable(error, tree, Search)) from error
    _check(search, of_base)
    base = configuration.tree_of(_base(search.base, here), of_base)
    if search.metric not in PLAIN:  # known of a run that was trained for it alone
        configuration.set_key(base, "train.select.metric", search.metric)
    return msgspec.structs.replace(search, base=base)


def _axis_error(tree: Mapping[str, Any]) -> str | None:
    """What is wrong with an axis, by its name, which msgspec does not tell."""
    axes = tree.get("axes")
    for name, values in axes.items() if isinstance(axes, Mapping) else ():
        try:
            msgspec.convert(values, Axis)
        except msgspec.ValidationError as error:
            said = configuration.readable(error, values)
            return f"axes.{name}{said}" if said.startswith(":") else f"axes.{name}.{said}"
    return None


def fingerprint(search: Search) -> str:
    """Eight hex digits: equal searches, equal digits."""
    return hashlib.sha256(msgspec.json.encode(search, order="deterministic")).hexdigest()[:8]


def _read(source: str | Path | Mapping[str, Any]) -> tuple[Tree, Path]:
    """The tree, and the folder that paths in `base:` may be relative to."""
    if isinstance(source, Mapping):
        return msgspec.to_builtins(source), Path()
    path = Path(source)
    if not path.is_file():
        path = recipes.search_path(str(source)) or path
    if not path.is_file():
        known = recipes.search_names()
        hint = nearest(str(source), known) or f"; shipped searches: {', '.join(known)}"
        raise UserError(f"no search file '{source}'{hint}")
    return configuration.read_yaml(path), path.parent


def _base(base: str | Tree, here: Path) -> str | Tree | Path:
    return here / base if isinstance(base, str) and (here / base).is_file() else base


def _sort(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides of the search file's own keys, and those of the base."""
    fields = set(Search.__struct_fields__)
    own = [word for word in overrides if word.partition("=")[0].split(".")[0] in fields]
    return own, [word for word in overrides if word not in own]


def _check_names(tree: Mapping[str, Any]) -> None:
    sections = {"": Search, "strategy": Strategy, "halving": Halving, "resources": Resources}
    for section, struct in sections.items():
        content = tree.get(section) if section else tree
        for name in content if isinstance(content, Mapping) else ():
            if name not in struct.__struct_fields__:
                hint = nearest(str(name), struct.__struct_fields__)
                known = f"; expected {', '.join(struct.__struct_fields__)}"
                dotted = f"{section}.{name}" if section else name
                raise UserError(f"unknown key '{dotted}' in the search file{hint or known}")
    for needed in ("base", "axes"):
        if needed not in tree:
            raise UserError(f"the search file has no '{needed}': it needs base (what is varied) and axes (how)")


def _check(search: Search, of_base: Sequence[str]) -> None:
    goal_of(search.metric, "metric")
    if not search.axes:
        raise UserError("axes is empty: name at least one configuration key and its values")
    if search.strategy.name in ("one_at_a_time", "factorial") and search.strategy.trials is not None:
        raise UserError(
            f"strategy.trials cannot apply to {search.strategy.name}, which runs every point: use grid or random"
        )
    within = search.halving.within if search.halving else None
    if within is not None and within not in search.axes:
        hint = nearest(within, search.axes) or f"; its axes are {', '.join(search.axes)}"
        raise UserError(f"halving.within: '{within}' is no axis of this search{hint}")
    varied = {name: name for name in search.axes}
    for name, values in search.axes.items():  # an axis of another name sets the keys of its choices
        if isinstance(values, list):
            varied |= {str(key): name for value in values if isinstance(value, Mapping) for key in value}
    if "data.folds" in varied:
        raise UserError(
            f"axes.{varied['data.folds']} varies data.folds, which holds no rows out for a search to choose by: leave it out"
        )
    for word in of_base:
        key = word.partition("=")[0]
        if key in varied:
            raise UserError(f"{key} is an axis of this search: change its values with  axes.{varied[key]}=[...]")
