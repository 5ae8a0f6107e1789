"""Metrics as plain text for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

from rankwise.records import Scores

WIDTH = 80
# A label cut shorter than this says nothing; columns are numbered instead.
_SHORTEST_LABEL = 6
_LONGEST_LABEL = 32
# Room kept for the row labels of a matrix with numbered columns.
_NUMBERED_LABEL = 16
_TOP_CONFUSIONS = 20


def full(scores: Scores, width: int = WIDTH) -> str:
    """The per-class report, the confusion matrix and the accuracy."""
    return "\n\n".join((per_class(scores, width), confusion(scores, width), summary(scores)))


def accuracy(scores: Scores) -> str:
    """One line: the accuracy, its 95% interval and the rows it was measured on."""
    low, high = scores.accuracy_ci95
    return (
        f"accuracy {100 * scores.accuracy:.2f}% "
        f"(95% interval {100 * low:.2f} to {100 * high:.2f}) on {scores.examples:,} rows"
    )


def summary(scores: Scores) -> str:
    """The accuracy line, one line of the other headline figures, and what the run's goal came to."""
    keys = ("loss", "macro_f1", "weighted_f1", "micro_f1", "ece", "brier")
    known = ((key, getattr(scores, key)) for key in keys)
    figures = "  ".join(f"{key} {value:.4f}" for key, value in known if value is not None)
    return f"{accuracy(scores)}\n{figures}{_goal(scores)}"


def _goal(scores: Scores) -> str:
    goal = scores.goal
    if goal is None:
        return ""
    precision = "" if goal.precision is None else f" at a precision of {goal.precision:.4f}"
    return f"\n{goal.name}: {goal.value:.4f}{precision}"


def per_class(scores: Scores, width: int = WIDTH) -> str:
    """One line a class: precision, recall with interval, F1, rows, shares predicted and true; then means."""
    rows = [
        [
            name,
            _share(row.precision),
            _share(row.recall),
            _interval(row.recall_ci95),
            _share(row.f1),
            f"{row.support:,}",
            f"{100 * scores.predicted_mix[name]:.1f}%",
            f"{100 * scores.true_mix[name]:.1f}%",
        ]
        for name, row in scores.per_class.items()
    ]
    header = ["class", "precision", "recall", "(95%)", "F1", "rows", "predicted", "true"]
    means = [
        [f"{kind} mean", "", "", "", _share(f1), "", "", ""]
        for kind, f1 in (("macro", scores.macro_f1), ("weighted", scores.weighted_f1))
    ]
    return table(header, rows + means, width)


def confusion(scores: Scores, width: int = WIDTH) -> str:
    """Rows are actual and columns predicted classes; the commonest confusions when the matrix is too wide."""
    names, counts = list(scores.per_class), scores.confusion
    if isinstance(counts[0][0], list):
        cells = [[name, *(f"{n:,}" for row in matrix for n in row)] for name, matrix in zip(names, counts, strict=True)]
        return table(["label", "rightly no", "wrongly yes", "wrongly no", "rightly yes"], cells, width)
    texts = [[f"{n:,}" if n else "." for n in row] for row in counts]
    digits = max(len(text) for row in texts for text in row)
    room = width - min(_LONGEST_LABEL, max(map(cell_len, [*names, "actual"])))
    column = room // len(names) - 2
    longest = max(map(cell_len, names))
    if column >= max(digits, min(longest, _SHORTEST_LABEL)):
        header, rows = [cut(name, column) for name in names], names
    elif width - _NUMBERED_LABEL >= (max(digits, len(str(len(names)))) + 2) * len(names):
        header = [str(c + 1) for c in range(len(names))]
        rows = [f"{c + 1} {name}" for c, name in enumerate(names)]
    else:
        return _top_confusions(names, counts, width)
    title = "confusion (rows actual, columns predicted)\n"
    return title + table(["actual", *header], [[r, *t] for r, t in zip(rows, texts, strict=True)], width)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH) -> str:
    """Aligned text: the first column to the left and cut to what the others leave, the rest to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(cell_len(line[c]) for line in lines) for c in range(len(header))]
    left = max(_SHORTEST_LABEL, min(widths[0], width - sum(widths[1:]) - 2 * (len(header) - 1)))
    text = []
    for line in lines:
        cells = [set_cell_size(cut(line[0], left), left)]
        cells += [" " * (widths[c] - cell_len(line[c])) + line[c] for c in range(1, len(line))]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def cut(text: str, width: int) -> str:
    """A text of at most `width` terminal cells; a longer one loses its middle: labels differ at the ends."""
    text = " ".join(text.split())
    if cell_len(text) <= width:
        return text
    head = width // 2
    tail = width - 1 - head
    # A character fills one cell or two: never more characters than cells, perhaps fewer.
    start, end = text[:head], text[len(text) - tail :]
    while cell_len(start) > head:
        start = start[:-1]
    while cell_len(end) > tail:
        end = end[1:]
    return f"{start}…{end}"


def _top_confusions(names: Sequence[str], counts: Sequence[Sequence[int]], width: int) -> str:
    wrong = [
        (n, actual, predicted)
        for actual, row in enumerate(counts)
        for predicted, n in enumerate(row)
        if n and actual != predicted
    ]
    wrong.sort(key=lambda entry: (-entry[0], entry[1], entry[2]))
    room = (width - 12) // 2
    rows = [[f"{cut(names[a], room)} -> {cut(names[p], room)}", f"{n:,}"] for n, a, p in wrong[:_TOP_CONFUSIONS]]
    title = f"the commonest of {len(wrong):,} confusions (actual -> predicted)"
    return table([title, "rows"], rows, width) if rows else "no row was confused"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: Sequence[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f}-{ends[1]:.3f}"
