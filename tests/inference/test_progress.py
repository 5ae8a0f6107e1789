"""A long prediction that is killed goes on where it was, and its file is the same."""

import shutil
from types import SimpleNamespace

import pytest

import processes
import rankwise
from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.inference import predict_file, predict_many, progress
from support import sentences, write_csv


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model, news):
    tree = {
        "model": {"name": str(tiny_model)},
        "adapter": {"rank": 2},
        "data": {"train": str(news["train"]), "max_length": 32},
        "train": {"steps": 10, "batch_size": 16, "learning_rate": 1e-2},
    }
    return rankwise.train(tree, out=tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture
def windows(monkeypatch):
    """Windows of ten rows; what is asked of the classifier, and after how many windows Ctrl-C comes."""
    told = SimpleNamespace(asked=[], fails_at=None)
    for module in (progress, predict_file, predict_many):
        monkeypatch.setattr(module, "WINDOW_ROWS", 10)
    answers = progress.Progress.answers

    def counted(self, texts, compute):
        def once():
            if len(told.asked) == told.fails_at:
                raise KeyboardInterrupt
            told.asked.append(len(texts))
            return compute()

        return answers(self, texts, once)

    monkeypatch.setattr(progress.Progress, "answers", counted)
    return told


def interrupted(windows, *words, after=2):
    """A prediction that ends after some windows; what is left of it is the folder of windows."""
    windows.fails_at = after
    assert main(["predict", *map(str, words)]) == 130
    windows.fails_at = None
    assert windows.asked == [10] * after
    windows.asked.clear()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_what_was_answered_is_not_asked_again(ending, run, windows, tmp_path, capsys):
    source = write_csv(tmp_path / "new.csv", sentences(35, 4))
    out, whole = tmp_path / f"out.{ending}", tmp_path / f"whole.{ending}"
    interrupted(windows, run, source, out)
    assert not out.exists()
    assert main(["predict", str(run), str(source), str(out), "--resume"]) == 0
    assert windows.asked == [10, 5]
    assert "20 rows were answered before" in capsys.readouterr().out
    assert main(["predict", str(run), str(source), str(whole)]) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["new.csv", out.name, whole.name])


def test_several_runs_go_on_too(run, windows, tmp_path):
    source, out, whole = write_csv(tmp_path / "new.csv", sentences(35, 4)), tmp_path / "out.csv", tmp_path / "whole.csv"
    copy = shutil.copytree(run / "adapter", tmp_path / "copy")
    interrupted(windows, run, copy, source, out)
    assert main(["predict", str(run), str(copy), str(source), str(out), "--resume"]) == 0
    assert windows.asked == [10, 5]
    assert main(["predict", str(run), str(copy), str(source), str(whole)]) == 0
    assert out.read_bytes() == whole.read_bytes()


def test_rows_or_answers_that_changed_are_asked_anew(run, windows, tmp_path):
    rows = sentences(35, 4)
    source, out = write_csv(tmp_path / "new.csv", rows), tmp_path / "out.csv"
    interrupted(windows, run, source, out, after=3)
    write_csv(source, [*rows[:12], ("another text", "sport"), *rows[13:]])  # in the second window
    assert main(["predict", str(run), str(source), str(out), "--resume"]) == 0
    assert windows.asked == [10, 5]
    windows.asked.clear()
    interrupted(windows, run, source, out)
    assert main(["predict", str(run), str(source), str(out), "--resume", "--engine", "reference"]) == 0
    assert windows.asked == [10, 10, 10, 5]


def test_words_beside_an_encoder_are_part_of_who_answers(tmp_path):
    def place(content):
        (tmp_path / "adapter" / "words").mkdir(parents=True, exist_ok=True)
        (tmp_path / "adapter" / "words" / "words.json").write_text(content)
        return progress.Progress(tmp_path / "out.csv", 5, [tmp_path / "adapter"], resume=False)._place(["text"])

    assert place("one") == place("one") != place("another")


def test_without_resume_it_begins_anew(run, windows, tmp_path):
    source, out = write_csv(tmp_path / "new.csv", sentences(35, 4)), tmp_path / "out.csv"
    interrupted(windows, run, source, out)
    assert main(["predict", str(run), str(source), str(out)]) == 0
    assert windows.asked == [10, 10, 10, 5]
    assert main(["predict", str(run), str(source), str(out), "--resume"]) == 0  # of nothing: from the first row


def test_a_planted_link_is_not_followed(run, windows, tmp_path):
    source, out = write_csv(tmp_path / "new.csv", sentences(35, 4)), tmp_path / "out.csv"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.csv.windows").symlink_to(tmp_path / "elsewhere")
    for resume in (False, True):
        with pytest.raises(UserError, match="is a link"):
            predict_file.predict_file(run, source, out, resume=resume)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.slow
def test_a_killed_process(run, tmp_path):
    source = write_csv(tmp_path / "new.csv", sentences(30_000, 4))
    out, whole = tmp_path / "out.csv", tmp_path / "whole.csv"
    folder = tmp_path / ".out.csv.windows"
    with processes.Process("predict", run, source, out) as started:
        started.wait_for(lambda: list(folder.glob("*.npz")))
    assert not out.exists()
    kept = len(list(folder.glob("*.npz")))
    assert kept >= 1
    outcome = predict_file.predict_file(run, source, out, resume=True)
    assert outcome["resumed_rows"] >= kept * progress.WINDOW_ROWS
    predict_file.predict_file(run, source, whole)
    assert out.read_bytes() == whole.read_bytes()
    assert not folder.exists()
