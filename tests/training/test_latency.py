"""budget.max_ms: one text is measured before anything trains, the length is solved, and what is saved is measured again."""

import json

import pytest
from rich.console import Console

import rankwise
from rankwise import config as configuration
from rankwise import planning
from rankwise.cli import main
from rankwise.errors import BudgetError
from rankwise.models import tokenizer_of
from rankwise.planning import measured
from rankwise.records import Latency
from rankwise.search.sweep.trial import load_data
from rankwise.training import latency
from rankwise.training.job import train
from training.runs import with_keys


@pytest.fixture
def a_token_takes_a_tenth(monkeypatch):
    """Of a millisecond, on a machine that is always as fast."""

    def ask(self, length):
        return Latency(p50_ms=0.1 * length, p99_ms=0.2 * length, tokens=length, percentile=self._percentile)

    monkeypatch.setattr(latency._Measuring, "__call__", ask)


def within(config, **keys):
    tree = configuration.from_dict(with_keys(config, **keys))
    roles = load_data(tree.data, ["train"])
    plan = planning.plan(tree, len(roles.label_names))
    return latency.within(plan, roles.train, roles.label_names, tokenizer_of(tree.model))


@pytest.mark.parametrize(("percentile", "shortest", "longest"), [(50, 10, 13), (100, 16, 18)])
def test_the_text_that_counts_is_of_the_percentile_asked_for(
    config, a_token_takes_a_tenth, percentile, shortest, longest
):
    plan, found = within(config, budget__max_ms=1e6, budget__ms_percentile=percentile)
    assert shortest <= found.tokens <= longest
    assert plan.config.data.max_length == 32, "within the budget nothing changes"


def test_the_longest_texts_that_keep_the_budget_are_solved_for(config, a_token_takes_a_tenth):
    plan, found = within(config, budget__max_ms=0.95, data__max_length=None)
    assert plan.config.data.max_length == found.tokens == 9
    with pytest.raises(BudgetError, match=r"over budget.max_ms of 0.95: the longest data.max_length that fits is 9"):
        within(config, budget__max_ms=0.95, data__max_length=30)


@pytest.mark.parametrize("length", [30, None])
def test_where_no_length_keeps_it_the_base_is_too_slow(config, a_token_takes_a_tenth, length):
    with pytest.raises(BudgetError, match=r"even when it is cut at 8 tokens, over budget.max_ms of 0.1"):
        within(config, budget__max_ms=0.1, data__max_length=length)


def test_what_is_saved_is_measured_again_and_said(config, tmp_path, capsys):
    run = train(with_keys(config, budget__max_ms=60_000), out=tmp_path / "r", console=Console(quiet=True))
    single = run.record.latency
    assert 0 < single.p50_ms <= single.p99_ms < 60_000
    assert single.tokens <= 17
    assert not any("max_ms" in note for note in run.record.notes)
    assert rankwise.load(run).predict(["the striker said"])
    late = latency_note(run, single, 0.5 * single.p50_ms)
    assert "over budget.max_ms" in late


def latency_note(run, single, limit):
    from rankwise.inference.latency import over

    assert over(single, 2 * single.p50_ms) is None
    assert over(single, None) is None
    return over(single, limit)


def test_what_nothing_keeps_is_refused_before_anything_is_written(config, tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(with_keys(config, budget__max_ms=1e-6)))
    assert main(["train", str(path), "--out", str(tmp_path / "r")]) == 2
    assert "over budget.max_ms of 1e-06" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    assert main(["train", str(path), "budget.max_ms=-1"]) == 2
    assert "budget.max_ms" in capsys.readouterr().err


def test_a_plan_says_what_was_measured_here(config, tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(with_keys(config, adapter__rank=3, data__num_labels=3, data__max_length=40)))
    assert main(["plan", str(path), "budget.max_ms=60000"]) == 0
    assert "not measured on this machine: --measure" in capsys.readouterr().out
    assert main(["plan", str(path), "--measure", "--json"]) == 0
    single = json.loads(capsys.readouterr().out)["measured"]["single"]
    assert list(single) == ["8", "16", "32", "40"]
    assert main(["plan", str(path), "budget.max_ms=60000"]) == 0
    said = capsys.readouterr().out
    assert f"{single['16']['p50_ms']:.2f} ms at 16 tokens" in said
    assert "measured on this machine" in said
    assert main(["plan", str(path), "budget.max_ms=0.000001"]) == 2
    assert "over budget.max_ms of 1e-06" in capsys.readouterr().err


def test_between_lengths_that_were_measured_a_plan_forecasts():
    single = {"8": measured.Single(p50_ms=1.0, p99_ms=2.0), "32": measured.Single(p50_ms=4.0, p99_ms=5.0)}
    known = measured.Measured(single=single)
    assert known.single_ms(8) == 1.0
    assert known.single_ms(20) == pytest.approx(2.5)
    assert known.single_ms(33) is None, "beyond what was measured nothing is said"
    plan = rankwise.plan({"data": {"num_labels": 3, "max_length": 32}, "budget": {"max_ms": 2.0}})
    with pytest.raises(BudgetError, match="the longest data.max_length that fits is 16"):
        measured.require_ms(plan, known)
    measured.require_ms(rankwise.plan({"data": {"num_labels": 3, "max_length": 16}, "budget": {"max_ms": 2.0}}), known)
