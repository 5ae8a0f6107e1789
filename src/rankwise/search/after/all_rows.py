"""What is solved at once fitted once more on all rows, a floor that wins or words beside an encoder: what was held out has chosen
and scored, and is spent last.

Its folder is copied, so that it stays as it was judged; the copy is shipped. A trained winner is left as it is: a tenth of its steps
more on all rows, or all of its steps on them, were not told apart from it (LOG.md); `train.refit_steps` does that where it is asked for.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec

from rankwise import config as configuration
from rankwise.baselines import words
from rankwise.deadline import Deadline
from rankwise.errors import UserError
from rankwise.methods import method_of
from rankwise.records import Winner, read
from rankwise.records.result import Refit
from rankwise.records.search import FLOORS
from rankwise.records.words import WordsRecord
from rankwise.runs.folder import Run
from rankwise.search.sweep.trial import load_data, trained
from rankwise.training.interrupt import requested
from rankwise.training.refit import together

FOLDER = "all-rows"
_SLOWER = 1.5
"""than before, that the machine may be"""


def on_all_rows(winner: Winner, folder: Path, deadline: Deadline) -> Winner:
    """The winner fitted on all rows, its scores as they were; the winner itself where it was trained in steps, or where there
    is no time.
    """
    before, run = Run(folder / winner.run), Run(folder / FOLDER)
    counted = next((place for place in (before.path, before.adapter) if (place / words.FOLDER).is_dir()), None)
    solved_at_once = counted is not None or method_of(before.config).solved_at_once
    took = (Run(folder / FLOORS / "words") if counted == before.adapter else before).record.timing.total_s
    if counted is not None:
        took *= before.record.data["train"].rows / (
            read(counted / words.FOLDER / words.DETAILS, WordsRecord).fitted_on or 1
        )
    if requested() or not solved_at_once or deadline.left_s() < _SLOWER * took:
        return winner
    try:
        done = (
            _features(before, run, deadline)
            if counted is None
            else _words(before, run, deadline, counted / words.FOLDER)
        )
    except KeyboardInterrupt:
        if not requested():
            raise
        return winner
    except UserError:
        return winner
    return winner if done is None else msgspec.structs.replace(winner, run=FOLDER, refit=done)


def _features(before: Run, run: Run, deadline: Deadline) -> Refit | None:
    copied(before, run)
    tree = configuration.to_dict(before.config)
    tree["train"]["refit_steps"] = 1
    run.write_config(configuration.from_dict(tree))
    with run.changing() as result:
        result.status = "interrupted"
    trained(tree, run.path, resume=True, deadline=deadline)
    return run.record.refit


def _words(before: Run, run: Run, deadline: Deadline, place: Path) -> Refit | None:
    started = time.time()
    roles = load_data(before.config.data)
    if roles.validation is None:
        return None
    classifier, rows = words.WordClassifier.load(place), together(roles.train, roles.validation)
    again = words.fit_again(classifier, rows.texts, rows.labels, deadline)
    copied(before, run)
    again.save(run.path / place.relative_to(before.path))
    beside = place.parent == before.adapter
    done = Refit(rows=len(rows), words=beside, seconds=round(time.time() - started, 3))
    with run.changing() as result:
        result.refit = done
        result.notes.append(done.note)
    return done


def copied(before: Run, run: Run) -> None:
    """A copy of a run's folder, in place of one that a stopped session left."""
    shutil.rmtree(run.path, ignore_errors=True)
    shutil.copytree(before.path, run.path, ignore=shutil.ignore_patterns(".*", "*.lock"))
