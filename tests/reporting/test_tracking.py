"""Trackers hold the history that the run's own file holds, without a network."""

import pytest

import rankwise
from rankwise import config as configuration
from rankwise.errors import UserError
from rankwise.records.history import HistoryRow
from rankwise.runs.folder import Run
from rankwise.training.tracking import open_tracker

ROWS = [
    HistoryRow(
        step=step,
        train_loss=loss,
        validation_loss=1.0,
        validation_accuracy=accuracy,
        validation_macro_f1=accuracy,
        learning_rate=rate,
    )
    for step, loss, accuracy, rate in [(4, 1.5, 0.5, 1e-3), (8, 1.0, 0.75, 0.0)]
]


def tracked(name, tmp_path):
    tracker = open_tracker(configuration.from_dict({"track": name}), Run(tmp_path / "run"))
    for row in ROWS:
        tracker.evaluation(row)
    tracker.finish({"validation": {"accuracy": 0.75, "step": 8, "per_class": {}}}, step=8)
    return tmp_path / "run" / "tracking"


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tracked("tensorboard", tmp_path) / "run"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("validation_accuracy")] == [(4, 0.5), (8, 0.75)]
    assert [e.value for e in events.Scalars("validation/accuracy")] == [0.75]
    assert "loss_ratio" not in events.Tags()["scalars"]


def test_a_run_sends_its_evaluations(config, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config["train"] |= {"steps": 8, "eval_every": 4}
    run = rankwise.train({**config, "track": "tensorboard"}, out=tmp_path / "run")
    events = EventAccumulator(str(run.path / "tracking" / "run"))
    events.Reload()
    for name in ("train_loss", "validation_accuracy", "learning_rate"):
        sent = [(event.step, event.value) for event in events.Scalars(name)]
        assert sent == [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in run.history]
    assert [event.step for event in events.Scalars("validation/accuracy")] == [8]


def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tracked("mlflow", tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("rankwise")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "validation_accuracy")
    assert [(m.step, m.value) for m in history] == [(4, 0.5), (8, 0.75)]
    assert run.data.params["adapter.method"] == "lora"


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = tracked("wandb", tmp_path)
    import wandb

    wandb.teardown()  # its own process writes the last records
    (run,) = folder.glob("wandb/offline-run-*")
    assert any(b"validation_accuracy" in file.read_bytes() for file in run.rglob("*") if file.is_file())


def test_none_is_none(tmp_path):
    assert open_tracker(configuration.from_dict({}), Run(tmp_path)) is None


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "wandb":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"rankwise\[track-wandb\]"):
        open_tracker(configuration.from_dict({"track": "wandb"}), Run(tmp_path))
