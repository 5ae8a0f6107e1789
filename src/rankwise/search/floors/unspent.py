"""What is left of the clock where nothing that trains fits into it: richer words and heads on more rows, which take what there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rankwise.baselines import words
from rankwise.deadline import Deadline
from rankwise.records.record import Tree
from rankwise.records.search import FLOORS
from rankwise.search.clock.speed import Speed
from rankwise.search.floors import beside
from rankwise.search.floors.floor import Floor, of_features, of_words
from rankwise.training.interrupt import requested

_OF_WORDS, _OF_FEATURES = 0.6, 0.6
"""of what is left, for each in turn: other work may come"""
_WORTH = 1.5
"""times the time, or the rows, that they had before"""
_FEWEST_ROWS = 500
"""of a first head"""


def spent(
    solved: Sequence[Floor],
    tree: Tree,
    fixed: set[str],
    roles: Any,
    folder: Path,
    speed: Speed,
    deadline: Deadline,
    quick: Callable[[Path], bool],
) -> list[Floor]:
    """The floors, with what more time has made of them; words first, whose rows cost least.

    tree, fixed, speed
        As `floors` has them.
    quick
        Whether what a run's folder holds keeps the limit of milliseconds.
    """
    before = next((one for one in solved if one.pooling is None and one.alone is None), None)
    found = [one for one in solved if one.alone is None]
    longer, speed = _words(before, tree, roles, folder, deadline), speed.now()
    more = [longer, _head(found, tree, fixed, roles, folder, speed, deadline)]
    new = [one for one in more if one is not None and quick(folder / one.run)]
    counted_s = max((one.seconds for one in (before, longer) if one is not None), default=0.0)
    if not new or counted_s + 2 * speed.setup_s > deadline.left_s():
        return [*new, *solved]
    found = [*new, *found]
    beside.prepared(tree, roles, found, folder)
    both = beside.of_features(found, folder, quick)
    return found if both is None else [*found, both]


def _words(before: Floor | None, tree: Tree, roles: Any, folder: Path, deadline: Deadline) -> Floor | None:
    """Words counted for longer; None where nothing was left out, or there is hardly more time."""
    seconds = _OF_WORDS * deadline.left_s()
    if before is None or requested() or seconds < _WORTH * before.seconds:
        return None
    known = words.WordClassifier.load(folder / before.run / words.FOLDER)
    if known.fitted_on == len(roles.train) and words.is_richest(known):
        return None
    longer = of_words(tree, roles, folder / FLOORS / "words-longer", seconds)
    return None if longer is None or longer.title == before.title else longer


def _head(
    found: Sequence[Floor], tree: Tree, fixed: set[str], roles: Any, folder: Path, speed: Speed, deadline: Deadline
) -> Floor | None:
    """A head on frozen features of more rows; None where there is hardly more time."""
    heads = [one for one in found if one.pooling is not None]
    rows = (tree["head"].get("probe_rows") or len(roles.train)) if heads else 0
    # Set up twice, for the proof.
    deadline = deadline.part(_OF_FEATURES).keeping(speed.once_s(len(roles.validation)))
    most = min(len(roles.train), int((deadline.left_s() - speed.setup_s) / speed.score_s))
    if requested() or most < max(_WORTH * rows, min(_FEWEST_ROWS, len(roles.train))):
        return None
    own = {**tree, "head": {**tree["head"], "probe_rows": most}}
    pooling = heads[0].pooling if heads else "auto"
    return of_features(own, fixed, pooling, folder / FLOORS / "features-longer", deadline)
