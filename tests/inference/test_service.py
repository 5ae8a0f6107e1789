"""A run in service: on another machine, beside another base, with a record of another version."""

import json
import shutil

import numpy as np
import pytest

import rankwise
from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.inference import saved
from support import sentences, write_csv


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model, news):
    """A run on a base of its own, which may be moved."""
    folder = tmp_path_factory.mktemp("service")
    shutil.copytree(tiny_model, folder / "base")
    tree = {
        "model": {"name": str(folder / "base")},
        "adapter": {"rank": 2},
        "data": {"train": str(news["train"]), "test": str(news["test"]), "max_length": 24, "preprocess": ["lowercase"]},
        "train": {"steps": 8, "batch_size": 8},
    }
    return rankwise.train(tree, out=folder / "run").path


@pytest.fixture
def service(trained, tmp_path):
    """A copy of its folder, and of its base elsewhere."""
    shutil.copytree(trained.parent, tmp_path / "service")
    return tmp_path / "service" / "run"


def rewritten(folder, change):
    """The record beside an adapter, changed."""
    path = folder / "adapter" / "rankwise.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


def renamed(content):
    train = content["config"]["train"]
    train["lr"] = train.pop("learning_rate")
    content["config"]["adapter"]["method"] = "lora-of-a-later-version"
    content["config"]["something"] = {"new": [1, 2]}
    content["version"] = 99


def shortened(content):
    content["config"] = {"model": content["config"]["model"], "data": content["config"]["data"]}


@pytest.mark.parametrize("change", [renamed, shortened])
def test_an_adapter_in_service_outlives_keys_of_training(service, trained, texts, change):
    expected = rankwise.load(trained).logits(texts)
    ours = rankwise.load(rewritten(service, change))
    assert np.array_equal(ours.logits(texts), expected)
    assert (ours.max_length, ours.preprocess) == (24, ("lowercase",))


def test_a_run_answers_though_its_configuration_is_of_another_version(service, trained, texts):
    config = service / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate", "lr"))
    assert np.array_equal(rankwise.load(service).logits(texts), rankwise.load(trained).logits(texts))


def test_a_damaged_record_is_one_sentence(service, capsys):
    path = service / "adapter" / "rankwise.json"
    content = path.read_text()
    path.write_text(content[:50])
    with pytest.raises(UserError, match="rankwise.json is not valid JSON"):
        rankwise.load(service)
    path.write_text("[]")
    with pytest.raises(UserError, match="rankwise.json is damaged"):
        rankwise.load(service)
    path.write_text(content)
    with pytest.raises(UserError, match="rankwise.json is damaged.*max_length"):
        rankwise.load(rewritten(service, lambda found: found["config"]["data"].update(max_length="long")))
    assert main(["predict", str(service), "x.csv", "y.csv"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_base_of_another_machine_is_named(service, trained, texts, tmp_path, capsys):
    gone = str(tmp_path / "kaggle" / "input")
    rewritten(service, lambda found: found["config"]["model"].update(name=gone))
    base, expected = service.parent / "base", rankwise.load(trained)
    with pytest.raises(UserError, match=f"no folder '{gone}'; name the base's folder with base=FOLDER"):
        rankwise.load(service)
    for path in (service, service / "adapter"):
        assert np.array_equal(rankwise.load(path, base=base).logits(texts), expected.logits(texts))
    rows = write_csv(tmp_path / "new.csv", sentences(9, seed=5))
    words = ["predict", str(service), str(rows), str(tmp_path / "out.jsonl")]
    assert main([*words, f"model.name={base}"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["predicted"] for line in lines] == expected.predict([text for text, _ in sentences(9, seed=5)])
    assert main(words) == 2
    assert "on the command line model.name=FOLDER" in capsys.readouterr().err
    assert main([*words, "train.steps=3"]) == 2
    assert "'train.steps=3' cannot change at prediction" in capsys.readouterr().err
    assert rankwise.evaluate(service, [f"model.name={base}"])["accuracy"] == rankwise.evaluate(trained)["accuracy"]


def test_a_base_that_is_not_the_adapters_is_refused(service, base, tmp_path):
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(base)
    config.num_hidden_layers = 1
    AutoModel.from_config(config).save_pretrained(tmp_path / "shallow")
    with pytest.raises(UserError, match="does not fit its base"):
        rankwise.load(service, base=tmp_path / "shallow")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_run_of_a_gpu_answers_on_any_processor(service, trained, texts, precision):
    rewritten(service, lambda found: found["config"]["model"].update(precision=precision))
    rewritten(service, lambda found: found["config"].update(engine="auto"))
    exact = rankwise.load(trained, precision="fp32")
    answers = rankwise.load(service).logits(texts)
    np.testing.assert_allclose(answers, exact.logits(texts), atol=0.02)
    ours = rankwise.load(service, precision="fp32").logits(texts)
    assert np.array_equal(ours, exact.logits(texts))


def test_what_is_asked_for_is_done_or_refused(service, texts):
    reference = rankwise.load(service, engine="reference", precision="fp32").logits(texts)
    np.testing.assert_allclose(rankwise.load(service, precision="fp32").logits(texts), reference, atol=1e-5)
    with pytest.raises(UserError, match="engine is 'slow', expected one of auto, fast, reference"):
        rankwise.load(service, engine="slow")
    with pytest.raises(UserError, match="precision is 'fp8', expected one of auto"):
        rankwise.load(service, precision="fp8")
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        rankwise.load(service, precision="fp16")


def test_the_record_is_read_once_and_says_all(service):
    read = saved.read(service)
    assert (read.text, read.preprocess, read.max_length, read.label_names) == (
        ["text"],
        ("lowercase",),
        24,
        ["business", "science", "sport"],
    )
    assert read.notes == ()


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_a_score_and_a_served_answer_come_from_the_same_arithmetic(config, news, tmp_path, engine):
    from rankwise.scoring import predictions
    from rankwise.scoring.calibration import apply_temperature

    config["model"]["precision"] = "bf16"
    run = rankwise.train(config | {"engine": engine}, out=tmp_path / "run")
    assert run.result["reload"]["max_logit_difference"] == 0.0
    scored = predictions.read(run.path, "validation")
    import pyarrow.csv

    rows = pyarrow.csv.read_csv(news["validation"])["text"].to_pylist()
    served = apply_temperature(rankwise.load(run).logits(rows), 1.0, multi_label=False)
    assert np.abs(served - scored.probabilities).max() < 1e-6
