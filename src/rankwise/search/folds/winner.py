"""The one that folds chose, fitted on all rows, with words beside it where folds say so: what is shipped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankwise import config as configuration
from rankwise.deadline import NEVER, Deadline
from rankwise.methods import method_of
from rankwise.records import Winner
from rankwise.records.record import Tree
from rankwise.runs.folder import Run
from rankwise.search.after.all_rows import FOLDER
from rankwise.search.designs.contenders import configured
from rankwise.search.floors import beside
from rankwise.search.floors.floor import fit_words, write_words
from rankwise.search.folds.standing import Standing
from rankwise.search.sweep.trial import load_data, trained
from rankwise.training.interrupt import requested


def fit_on_all(standing: Standing, tree: Tree, folder: Path, deadline: Deadline) -> Winner:
    """Fit it on all rows, as a run in the search's folder; returns what search.json says of the winner.

    Asked to stop, the run ends with the steps it has taken.
    """
    design, path = standing.contender.design, folder / FOLDER
    unscored: dict[str, Any] = {"evaluate": False, "eval_every": None, "evaluate_at": []}
    config = configuration.replaced(configuration.from_dict(tree), "train", **unscored)
    roles = load_data(config.data, ["train", "test"])
    rows = roles.train
    shutil.rmtree(path, ignore_errors=True)  # of what was stopped before it had a record
    if design is None:
        started = time.time()
        classifier = fit_words(config, rows, roles.label_names)
        assert classifier is not None  # as it was in every fold
        write_words(replace(classifier, decision=standing.decision), config, roles, path, started)
        run = Run(path)
    else:
        own = configured(tree, design, rows.labels)
        own["train"] |= unscored
        at_once = method_of(
            configuration.from_dict(own)
        ).solved_at_once  # of fewer rows it is not what folds have judged
        try:
            run = trained(own, path, deadline=NEVER if at_once else deadline)
        except KeyboardInterrupt:
            if not requested() or not path.is_dir():
                raise
            run = trained(own, path, deadline=NEVER if at_once else Deadline.after(0), resume=True)
    standing.keep(run, rows)
    title, trainable = standing.contender.title, run.record.parameters.trainable
    winner = Winner.at_once(FOLDER, title, standing.scores, standing.value, trainable)
    if design and "adapter.scope" in design and isinstance(run.config.adapter.rank, int):
        winner.rank = run.config.adapter.rank
    return winner


def with_words_beside(
    winner: Winner, both: Standing, weight: float, folder: Path, quick: Callable[[Path], bool]
) -> Winner | None:
    """What was fitted on all rows, with words of this weight beside it as folds have judged both; None where both are too slow."""
    found = beside.kept(folder)
    assert found is not None  # as it was for the folds
    texts = load_data(Run(folder / winner.run).config.data, ["train", "test"]).train.texts
    found = replace(found, weight=weight)
    return beside.shipped(winner, folder, found, both.scores, both.decision, both.value, texts, quick)
