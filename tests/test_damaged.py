"""Every file that is read back, damaged: one sentence and exit code 2, never a traceback; a cache is made again."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

import rankwise
from rankwise.cli import main
from rankwise.config import from_dict
from rankwise.errors import UserError
from support import run_search

DAMAGES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "of another type": lambda content: b"[1, 2]",
    "binary": lambda content: random.Random(0).randbytes(512),
}


def run_words(verb, run, news, tmp_path):
    """A command line that reads a run's folder."""
    return {
        "predict": ["predict", run, news["test"], tmp_path / "out.csv"],
        "evaluate": ["evaluate", run, f"data.test={news['test']}"],
        "report": ["report", run, "--out", tmp_path / "report.html"],
        "compare": ["compare", run, run.with_name("other")],
        "calibrate": ["calibrate", run],
        "resume": ["train", run / "config.yaml", "--out", run, "--resume"],
        "info": ["adapters", "info", run / "adapter"],
        "merge": ["adapters", "merge", run / "adapter", "--out", tmp_path / "merged"],
        "export": ["export", run, "--to", "merged", "--out", tmp_path / "exported"],
    }[verb]


READ_BY = {
    "config.yaml": ["evaluate", "report", "compare", "resume"],
    "result.json": ["evaluate", "report", "calibrate", "resume"],
    "history.csv": ["report"],
    "test_looks.jsonl": ["evaluate", "report"],
    "predictions_test.parquet": ["compare", "report"],
    "predictions_validation.parquet": ["calibrate", "report"],
    "adapter/rankwise.json": ["predict", "info"],
    "adapter/adapter_config.json": ["predict", "evaluate", "info", "merge", "export"],
    "adapter/adapter_model.safetensors": ["predict", "evaluate", "info", "merge", "export"],
    "adapter/tokenizer.json": ["predict", "evaluate", "export"],
    "adapter/tokenizer_config.json": ["predict"],
}
BASE = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
STILL_A_TABLE = {("history.csv", "truncated"), ("history.csv", "empty"), ("history.csv", "of another type")}
"""what is a table, if another one, or none: it is shown as it is"""
STILL_EMPTY = {("test_looks.jsonl", "empty")}
BY_ANOTHER_NAME = {("config.yaml", "resume", "empty"): "data.train is missing"}
"""what is said where the file is named on the command line and can be read, but says nothing"""


@pytest.fixture(scope="module")
def made(tiny_model, news, tmp_path_factory):
    """Runs that are finished, one that is paused, and a search, on a base of their own."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(tiny_model, root / "base")
    tree = {
        "model": {"name": str(root / "base")},
        "adapter": {"scope": ["query", "value"], "rank": 2},
        "data": {"train": str(news["train"]), "validation": str(news["validation"]), "max_length": 32},
        "train": {"steps": 4, "batch_size": 8, "eval_every": 2, "seed": 3},
    }
    run = rankwise.train(tree, out=root / "run")
    rankwise.evaluate(run, [f"data.test={news['test']}"])
    shutil.copytree(run.path, root / "other")
    rankwise.train(tree, out=root / "paused", stop_at_step=2)
    sweep = {"base": tree, "axes": {"train.learning_rate": [1e-3, 5e-3]}, "strategy": {"name": "factorial"}}
    run_search(sweep, root / "search")
    return root


@pytest.fixture
def copies(made, tmp_path):
    """The same to be damaged. Their configurations name the base and the data where they were."""
    for folder in made.iterdir():
        if folder.name != "base":
            shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    path.write_bytes(DAMAGES[kind](content))
    assert path.read_bytes() != content


def refused(capsys, words, what=None) -> None:
    """Exit code 2 and one sentence, or, of what can be read all the same, 0."""
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("rankwise: ")]
    if what is None and code == 0:
        return
    assert code == 2, printed
    assert len(lines) == 1, printed.err
    assert "Traceback" not in printed.err
    assert what is None or what in lines[0], lines[0]


@pytest.mark.sampled(30)
@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize(("file", "verb"), [(file, verb) for file, verbs in READ_BY.items() for verb in verbs])
def test_a_file_of_a_run(copies, news, capsys, file, verb, kind):
    damage(copies / "run" / file, kind)
    readable = (file, kind) in STILL_A_TABLE | STILL_EMPTY
    said = BY_ANOTHER_NAME.get((file, verb, kind), "tokenizer" if "tokenizer" in file else file.rpartition("/")[2])
    refused(capsys, run_words(verb, copies / "run", news, copies), None if readable else said)


def test_a_configuration_that_is_cut_anywhere_is_not_read_as_another(tmp_path, news):
    run = rankwise.Run(tmp_path)
    config = from_dict({"data": {"train": str(news["train"])}, "train": {"steps": 7, "seed": 3}})
    run.write_config(config)
    path, whole = tmp_path / "config.yaml", (tmp_path / "config.yaml").read_text()
    assert run.config == config
    ends = [at for at, character in enumerate(whole) if character == "\n"]
    for at in [0, 5, *ends[:-1], *(end + 1 for end in ends[:-1]), len(whole) - 2]:
        path.write_text(whole[:at])
        with pytest.raises(UserError, match=r"config\.yaml is damaged: it (was cut short|is empty)"):
            _ = run.config
    by_an_earlier_version = whole.split("\n", 1)[1].removesuffix("...\n")
    path.write_text(by_an_earlier_version)
    assert run.config == config


@pytest.mark.sampled(6)
@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("verb", ["train", "predict", "plan"])
@pytest.mark.parametrize("file", BASE)
def test_a_file_of_the_base(copies, made, news, capsys, file, verb, kind):
    shutil.copytree(made / "base", copies / "base")
    damage(copies / "base" / file, kind)
    name = f"model.name={copies / 'base'}"
    words = {
        "train": ["train", name, f"data.train={news['train']}", "train.steps=2", "--out", copies / "new"],
        "predict": ["predict", copies / "run", news["test"], copies / "out.csv", name],
        "plan": ["plan", name, "data.num_labels=3"],
    }[verb]
    # A run has a tokenizer of its own, and planning needs the configuration alone.
    unread = file.startswith("tokenizer") if verb == "predict" else verb == "plan" and file != "config.json"
    refused(capsys, words, None if unread else "tokenizer" if "tokenizer" in file else file)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_checkpoint(copies, capsys, kind):
    (file,) = (copies / "paused" / "checkpoints").glob("step-*/training.pt")
    damage(file, kind)
    refused(capsys, run_words("resume", copies / "paused", {"test": ""}, copies), "training.pt")


def test_a_checkpoint_of_another_version(copies, capsys):
    import torch

    (file,) = (copies / "paused" / "checkpoints").glob("step-*/training.pt")
    parts = torch.load(file, weights_only=True)
    assert parts["version"] == 1
    torch.save(parts | {"version": 99}, file)
    refused(capsys, run_words("resume", copies / "paused", {"test": ""}, copies), "is of version 99")
    torch.save({name: part for name, part in parts.items() if name != "weights"}, file)
    refused(capsys, run_words("resume", copies / "paused", {"test": ""}, copies), "is damaged (KeyError)")
    del parts["version"]  # as older ones are
    torch.save(parts, file)
    assert main(list(map(str, run_words("resume", copies / "paused", {"test": ""}, copies)))) == 0


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("file", ["search.json", "search.yaml", "study.db", "trials/0000/result.json"])
@pytest.mark.parametrize("verb", ["resume", "predict", "report"])
def test_a_file_of_a_search(copies, news, capsys, file, verb, kind):
    folder = copies / "search"
    damage(folder / file, kind)
    read = {
        "resume": ("search.json", "search.yaml", "study.db"),
        "predict": ("search.json",),
        "report": ("search.json",),
    }[verb]
    words = {
        "resume": ["search", "--out", folder, "--resume"],
        "predict": ["predict", folder, news["test"], copies / "out.csv"],
        "report": ["report", folder, "--out", copies / "report.html"],
    }[verb]
    said = {"search.yaml": "search", "study.db": "storage"}.get(file, file)
    remade = (file, kind) == ("study.db", "empty")  # an empty file is an empty database
    refused(capsys, words, said if file in read and not remade else None)


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_result_of_a_trial_that_a_search_goes_on_with(made, tmp_path, kind):
    """The trial fails in one sentence, and the others end."""
    from rankwise.search.sweep.trial import Task, carry_out

    shutil.copytree(made / "search", tmp_path / "search")
    trial = tmp_path / "search" / "trials" / "0000"
    config = json.loads(json.dumps(rankwise.Run(trial).result))  # of the same run
    assert config["status"] == "finished"
    damage(trial / "result.json", kind)
    outcome = carry_out(Task(0, {}, str(trial)))
    assert outcome.status == "failed"
    assert "result.json is" in outcome.error
    assert "\n" not in outcome.error


@pytest.mark.parametrize("kind", DAMAGES)
def test_caches_are_made_again(made, news, tmp_path, monkeypatch, kind):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "packaged").symlink_to(Path(os.environ["RANKWISE_CACHE"]) / "packaged")
    monkeypatch.setenv("RANKWISE_CACHE", str(cache))
    tree = {
        "model": {"name": str(made / "base")},
        "adapter": {"scope": ["query"], "rank": 2, "layers": [1]},
        "head": {"probe_first": True},
        "engine": "fast",
        "data": {"train": str(news["train"]), "validation": str(news["validation"]), "max_length": 32},
        "train": {"steps": 2, "batch_size": 8, "seed": 3, "prefix_cache_mb": 8},
    }
    first = rankwise.train(tree, out=tmp_path / "first")
    written = [path for path in cache.rglob("*") if path.is_file() and not path.name.startswith(".")]
    kinds = {path.relative_to(cache).parts[0] for path in written}
    assert {"tokens", "floor"} <= kinds, kinds
    for path in written:
        if path.stat().st_size:
            damage(path, kind)
    again = rankwise.train(tree, out=tmp_path / "again")
    assert again.result["metrics"] == first.result["metrics"]


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_a_killed_prediction_left_is_computed_again(tmp_path, kind):
    import numpy as np

    from rankwise.inference import progress

    def compute():
        computed.append(1)
        return [np.eye(2)]

    computed = []
    first = progress.Progress(tmp_path / "out.csv", 10_000, ["this"], resume=True)
    first.answers(["a", "b"], compute)
    (kept,) = (tmp_path / ".out.csv.windows").iterdir()
    damage(kept, kind)
    again = progress.Progress(tmp_path / "out.csv", 10_000, ["this"], resume=True)
    np.testing.assert_array_equal(again.answers(["a", "b"], compute)[0], np.eye(2))
    assert (len(computed), again.resumed) == (2, 0)
    again.answers(["a", "b"], compute)
    assert (len(computed), again.resumed) == (2, 2)


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("file", ["words.json", "words.safetensors"])
def test_a_classifier_of_words(news, tmp_path, capsys, file, kind):
    import numpy as np

    from rankwise.baselines import words

    texts = ["a goal for the team", "the bank and the market"] * 20
    classifier = words.fit(texts, np.array([0, 1] * 20), ["sport", "business"])
    classifier.save(tmp_path / "words")
    damage(tmp_path / "words" / file, kind)
    refused(capsys, ["predict", tmp_path / "words", news["test"], tmp_path / "out.csv"], file)
