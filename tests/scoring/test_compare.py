"""Runs compared through their prediction files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.cells import cell_len
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from rankwise.errors import UserError
from rankwise.scoring import compare, predictions

BUSINESS = "Business and everything else that is bought and sold"
NAMES = ["World", "Sports", BUSINESS]
ROWS = 600
LABELS = np.random.default_rng(9).integers(0, 3, ROWS)


def make_run(folder, skill, seed, *, names=NAMES, labels=LABELS, sha="ab" * 32, first_id=0):
    """A run that is the better the higher its skill."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(labels), 3))
    logits[np.arange(len(labels)), labels] += skill
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    order = [NAMES.index(name) if name in NAMES else i for i, name in enumerate(names)]
    folder.mkdir(parents=True)
    predictions.write(
        folder,
        "test",
        names,
        rows_sha256=sha,
        ids=[first_id + i for i in range(len(labels))],
        labels=np.argsort(order)[labels],
        probabilities=p[:, order],
    )
    return folder


@pytest.fixture
def runs(tmp_path):
    return [make_run(tmp_path / f"run{i}", skill, i) for i, skill in enumerate([2.0, 2.2, 3.5])]


def test_agrees_with_statsmodels(runs):
    result = compare.run(runs).to_dict()
    right = [predictions.read(run, "test").correct for run in runs]
    expected = []
    for pair, (i, j) in zip(result["pairs"], [(0, 1), (0, 2), (1, 2)], strict=True):
        a, b = right[i], right[j]
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        expected.append(mcnemar(table, exact=True).pvalue)
        assert pair["p"] == pytest.approx(expected[-1])
        assert pair["effect_rows"] == b.sum() - a.sum()
        assert pair["points"] == pytest.approx(100 * (b.mean() - a.mean()))
    corrected = multipletests(expected, method="holm")[1]
    assert [pair["p_holm"] for pair in result["pairs"]] == pytest.approx(corrected)
    assert result["best"] == ["run2"]
    assert [run["correct"] for run in result["runs"]] == [r.sum() for r in right]
    assert result["agreement"][0][0] == 1
    json.dumps(result, allow_nan=False)


def test_disagreements_are_split_rows_boldest_mistake_first(runs):
    comparison = compare.run(runs[:2])
    found = comparison.disagreements(limit=1000, texts=lambda row: f"text {row}")
    a, b = (run.correct for run in comparison.runs)
    assert sorted(example.row for example in found) == np.flatnonzero(a != b).tolist()
    boldest = [max(given.confidence for given in example.predicted.values() if not given.correct) for example in found]
    assert boldest == sorted(boldest, reverse=True)
    first = found[0]
    assert first.text == f"text {first.row}"
    assert first.label == NAMES[LABELS[first.row]]
    assert {given.label == first.label for given in first.predicted.values()} == {True, False}
    assert len(comparison.disagreements(limit=3)) == 3


def test_text_fits_and_names_the_best(runs):
    text = compare.run(runs).text(texts=lambda row: "word " * 100)
    assert text.startswith("3 runs on the same 600 test rows")
    assert "5%): run2" in text
    assert max(cell_len(line) for line in text.splitlines()) <= 80
    shown = compare.run(runs).to_dict()["pairs"][0]
    line = next(line for line in text.splitlines() if line.startswith("2 - 1"))
    assert line.removeprefix("2 - 1").split()[:2] == [f"{shown['effect_rows']:+}", f"{shown['points']:+.2f}"]


def test_runs_on_other_rows_are_refused_by_name(runs, tmp_path):
    other = make_run(tmp_path / "other", 2.0, 5, sha="cd" * 32)
    with pytest.raises(
        UserError, match=r"same test rows: other \(600 rows, sha256 cdcd.*than run0 \(600 rows, sha256 ab"
    ):
        compare.run([*runs, other])
    moved = make_run(tmp_path / "moved", 2.0, 5, first_id=1)
    with pytest.raises(UserError, match="moved"):
        compare.run([runs[0], moved])


def test_other_labels_of_the_same_rows_are_refused(runs, tmp_path):
    relabelled = make_run(tmp_path / "relabelled", 2.0, 5, labels=LABELS[::-1])
    with pytest.raises(UserError, match="relabelled was scored against other labels"):
        compare.run([runs[0], relabelled])


def test_classes_in_another_order_are_the_same_classes(runs, tmp_path):
    turned = make_run(tmp_path / "turned", 2.0, 0, names=[BUSINESS, "World", "Sports"])
    result = compare.run([runs[0], turned])
    assert result.pairs[0].effect_rows == 0
    assert result.agreement[0, 1] == 1
    np.testing.assert_allclose(result.runs[1].probabilities, result.runs[0].probabilities, rtol=1e-6)


def test_other_classes_are_refused(runs, tmp_path):
    other = make_run(tmp_path / "other", 2.0, 5, names=["World", "Sports", "Money"])
    with pytest.raises(UserError, match="sold, Money is not known to all"):
        compare.run([runs[0], other])


def test_one_run_or_the_same_twice_is_refused(runs):
    with pytest.raises(UserError, match="two or more runs, got 1"):
        compare.run(runs[:1])
    with pytest.raises(UserError, match="named twice"):
        compare.run([runs[0], runs[1], runs[0] / ".." / "run0"])


def test_folders_of_one_name_are_told_apart_by_their_paths(tmp_path):
    a, b = make_run(tmp_path / "x" / "run", 2.0, 0), make_run(tmp_path / "y" / "run", 2.0, 1)
    assert compare.run([a, b]).names == [str(a), str(b)]


def test_several_labels_a_row(tmp_path):
    rng = np.random.default_rng(3)
    labels = (rng.random((200, 3)) < 0.4).astype(np.int64)
    for name, skill in (("weak", 0.5), ("strong", 3.0)):
        p = 1 / (1 + np.exp(-(rng.normal(size=labels.shape) + skill * (2 * labels - 1))))
        (tmp_path / name).mkdir()
        predictions.write(
            tmp_path / name, "test", NAMES, rows_sha256="ab", ids=range(200), labels=labels, probabilities=p
        )
    result = compare.run([tmp_path / "weak", tmp_path / "strong"])
    assert result.best == ["strong"]
    assert result.pairs[0].rows == 200
    assert "strong" in result.text()
