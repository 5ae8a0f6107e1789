"""A finished run that was scored on its test rows, trained once for all tests of reports."""

from pathlib import Path

import pytest

import rankwise


@pytest.fixture(scope="session")
def finished(tiny_model, news, tmp_path_factory) -> Path:
    """A run's folder with history, predictions of both roles and one look at the test rows."""
    folder = tmp_path_factory.mktemp("reports") / "run"
    config = {
        "budget": {"max_trainable": 20_000},
        "model": {"name": str(tiny_model)},
        "adapter": {"scope": ["query", "value"], "rank": 4},
        "data": {role: str(news[role]) for role in ("train", "validation", "test")} | {"max_length": 32},
        "train": {"steps": 12, "batch_size": 8, "learning_rate": 5e-3, "eval_every": 4, "warmup_ratio": 0.1},
        "engine": "reference",
    }
    rankwise.train(config, out=folder)
    rankwise.evaluate(folder)
    return folder
