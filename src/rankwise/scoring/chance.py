"""Whether scores say that anything was learned: beside a classifier that always gives the most frequent class."""

from __future__ import annotations

from rankwise.records import Scores


def note(scores: Scores, role: str) -> str | None:
    """A sentence where the accuracy's 95% interval reaches down to the share of the most frequent class, else None.

    With several labels a text there is no such share: the most frequent set of labels says little of each label.
    """
    rows = {name: row.support for name, row in scores.per_class.items()}
    if not rows or scores.micro_f1 is not None or not scores.accuracy_ci95:
        return None
    name = max(rows, key=lambda one: rows[one])
    share, low = rows[name] / scores.examples, scores.accuracy_ci95[0]
    if low > share:
        return None
    return f"{role} accuracy is not told apart from always answering '{name}', the most frequent class"
