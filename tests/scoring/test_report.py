"""Terminal text: exact small cases, and that it stays within its width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from rankwise.scoring import report
from rankwise.scoring.metrics import evaluate


def measured(names, rows=500, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(names), rows)
    logits = rng.normal(size=(rows, len(names)))
    logits[np.arange(rows), labels] += 2
    return evaluate(logits, labels, names)


def test_exact_text():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
    metrics = evaluate(p, np.array([0, 0, 1, 0]), ["no", "yes"], probabilities=True)
    assert report.full(metrics) == (
        "class          precision  recall        (95%)     F1  rows  predicted   true\n"
        "no                 0.750   1.000  0.439-1.000  0.857     3     100.0%  75.0%\n"
        "yes                    -   0.000  0.000-0.793  0.000     1       0.0%  25.0%\n"
        "macro mean                                     0.429\n"
        "weighted mean                                  0.643\n"
        "\n"
        "confusion (rows actual, columns predicted)\n"
        "actual  no  yes\n"
        "no       3    .\n"
        "yes      1    .\n"
        "\n"
        "accuracy 75.00% (95% interval 30.06 to 95.44) on 4 rows\n"
        "loss 0.4004  macro_f1 0.4286  weighted_f1 0.6429  ece 0.3000  brier 0.2500"
    )


@pytest.mark.parametrize(
    "names",
    [
        ["a class whose name is much too long for a terminal", "b"],
        ["日本語のとても長いラベルの名前です" * 3, "体育"],
        [f"label {i}" for i in range(12)],
        [f"an intent of many words, number {i}, of sixty" for i in range(60)],
        ["two\nlines", "tab\tbed", "plain"],
    ],
)
def test_fits_eighty_columns(names):
    metrics = measured(names)
    assert len(report.per_class(metrics).splitlines()) == 1 + len(names) + 2
    text = report.full(metrics)
    lengths = [cell_len(line) for line in text.splitlines()]
    assert max(lengths) <= 80
    assert "accuracy" in text.splitlines()[-2]


def test_columns_are_numbered_before_they_are_dropped():
    names = [f"label {i}" for i in range(12)]
    text = report.confusion(measured(names))
    assert text.splitlines()[1].split() == ["actual", *(str(i + 1) for i in range(12))]
    assert text.splitlines()[2].startswith("1 label 0")


def test_the_commonest_confusions_stand_for_a_wide_matrix():
    names = [f"{i}" for i in range(80)]
    logits = np.zeros((5, 80))
    logits[[0, 1, 2, 3, 4], [7, 7, 7, 8, 9]] = 1
    text = report.confusion(evaluate(logits, np.array([3, 3, 3, 3, 9]), names))
    assert [line.split() for line in text.splitlines()[1:]] == [["3", "->", "7", "3"], ["3", "->", "8", "1"]]
    right = report.confusion(evaluate(np.eye(80), np.arange(80), names))
    assert right == "no row was confused"


def test_several_labels_show_yes_and_no():
    metrics = evaluate(np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([[1, 0], [0, 1]]), ["a", "b"])
    lines = report.confusion(metrics).splitlines()
    assert [line.split() for line in lines[1:]] == [["a", "0", "1", "0", "1"], ["b", "1", "0", "0", "1"]]
    assert "micro_f1 0.8000" in report.summary(metrics)


@given(st.text(max_size=60), st.integers(6, 40))
@settings(max_examples=60)
def test_cut_never_exceeds_its_width(text, width):
    cut = report.cut(text, width)
    assert cell_len(cut) <= width
    if cell_len(" ".join(text.split())) > width:
        assert "…" in cut


def test_cut_keeps_both_ends():
    assert report.cut("comp.sys.ibm.pc.hardware", 11) == "comp.…dware"
