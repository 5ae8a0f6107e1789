"""Forecasts of minutes and memory: arithmetic on what was measured, kept for later plans of the same rows and batch."""

import json

import pytest

from rankwise import config as configuration
from rankwise.cli import main
from rankwise.planning.forecast import RunFigures, forecast
from rankwise.search.clock import forecast as module

FIGURES = RunFigures(
    rows=1_000, validation_rows=100, step_s=0.5, score_s=0.01, setup_s=2.0, start_s=5.0, peak_mb=700, at=1.0
)


def seconds(*words):
    return 60 * forecast(configuration.load({}, ["data.num_labels=3", *words]), FIGURES).minutes


def test_steps_evaluations_and_the_head_take_what_they_were_measured_to():
    base = seconds("train.steps=120", "train.eval_every=60")
    assert seconds("train.steps=240", "train.eval_every=120") - base == pytest.approx(60, abs=1)
    assert seconds("train.steps=120", "train.eval_every=10") - base == pytest.approx(10, abs=1)
    assert seconds("train.steps=120", "train.eval_every=60", "train.accumulate=2") - base == pytest.approx(60, abs=1)
    assert seconds("train.steps=120", "train.eval_every=60", "head.probe_first=true") - base == pytest.approx(10, abs=1)
    assert forecast(configuration.load({}, ["data.num_labels=3", "train.epochs=2"]), FIGURES).steps == 2 * 63


def test_what_is_solved_at_once_has_no_steps_and_folds_come_several_times():
    solved = forecast(configuration.load({}, ["data.num_labels=3", "adapter.method=probe"]), FIGURES)
    assert solved.steps == 0
    assert 60 * solved.minutes == pytest.approx(5 + 2 + 10 + 2 + 1 + 2.3, abs=0.5), (
        "features of 1,000, scores of 228 rows"
    )
    assert seconds("train.steps=100", "data.folds=5") > 4 * 50 + seconds("train.steps=100", "train.evaluate=false")


def test_a_plan_keeps_what_was_measured_of_its_rows_and_its_batch(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "_SECONDS", 0.2)
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({**config, "adapter": {"scope": ["value"], "rank": 2}}))
    assert main(["plan", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forecast"] is None
    assert main(["plan", str(path), "--measure", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["forecast"]
    assert first["steps"] == 24
    assert first["minutes"] > 0
    assert first["peak_mb"] > 100
    assert main(["plan", str(path)]) == 0
    said = capsys.readouterr().out
    assert f"{first['minutes']:.1f} minutes for 24 steps on 240 rows, peak memory {first['peak_mb']:,.0f} MB" in said
    assert main(["plan", str(path), "train.steps=2400", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forecast"]["minutes"] > first["minutes"]
    assert main(["plan", str(path), "train.batch_size=4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forecast"] is None, "another batch was not measured"
    assert main(["plan", str(path), "budget.max_trainable=5", "--measure", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["fits"] is False, (
        "what is over budget is never measured, and still planned"
    )
