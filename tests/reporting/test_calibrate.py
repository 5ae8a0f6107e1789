"""A temperature is fitted on validation rows and travels with the adapter."""

import json
import shutil

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

import rankwise
from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.inference import saved
from rankwise.inference.calibrate import calibrate
from rankwise.scoring import predictions


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_minimises_the_validation_loss(run):
    found = calibrate(run)
    read = predictions.read(run, "validation")
    logits = rankwise.load(run).logits(_texts(run))
    rows = np.arange(len(read.labels))
    best = minimize_scalar(
        lambda t: -log_softmax(logits / t, axis=1)[rows, read.labels].mean(), bounds=(0.05, 20), method="bounded"
    )
    assert found.temperature == pytest.approx(best.x, rel=1e-3)
    assert found.loss_after <= found.loss_before
    assert found.rows == 60


def _texts(run):
    from rankwise import data
    from rankwise.runs.folder import Run

    return data.load(
        Run(run).config.data, roles=("validation",), label_names=Run(run).result["labels"]
    ).validation.texts


def test_is_kept_with_the_adapter_which_still_loads(run):
    found = calibrate(run)
    assert saved.read(run / "adapter").temperature == found.temperature
    assert json.loads((run / "result.json").read_text())["calibration"] == found.to_dict()
    assert rankwise.load(run / "adapter").predict(["a goal"]) == rankwise.load(run).predict(["a goal"])


def test_the_report_shows_it(run):
    calibrate(run)
    html = rankwise.report(run, texts=False).read_text(encoding="utf-8")
    assert 'data-at="/result/calibration/temperature"' in html


def test_json(run, capsys):
    assert main(["calibrate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["temperature"] == saved.read(run / "adapter").temperature


def test_refusals(run):
    details = json.loads((run / "adapter" / "rankwise.json").read_text())
    details.pop("calibration", None)
    (run / "adapter" / "rankwise.json").write_text(json.dumps(details))
    with pytest.raises(UserError, match="no temperature yet"):
        rankwise.load(run / "adapter", calibrated=True)
    (run / "predictions_validation.parquet").unlink()
    with pytest.raises(UserError, match="nothing to fit on"):
        calibrate(run)
    shutil.rmtree(run / "adapter")
    with pytest.raises(UserError, match="no adapter"):
        calibrate(run)
