"""The user's caches: private, within a size, and never a reason to fail."""

import os
import stat
import subprocess
import sys

import pytest

from rankwise.data.tokens import tokenise
from rankwise.machine import caches


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_folders_are_the_owner_s_alone_whatever_they_were(own):
    (own / "tokens").mkdir(parents=True)
    (own / "tokens").chmod(0o777)
    folder = caches.cache("tokens")
    assert folder == own / "tokens"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(caches.cache("features").stat().st_mode) == 0o700


@pytest.mark.parametrize("blocked", ["a file in its place", "a folder that cannot be made"])
def test_without_a_place_a_folder_of_this_process_stands_in(tmp_path, monkeypatch, blocked):
    (tmp_path / "file").touch()
    inner = "" if blocked == "a file in its place" else "below"
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "file" / inner))
    folder = caches.cache("tokens")
    (folder / "x").touch()
    assert caches.cache("tokens") == folder
    assert not folder.is_relative_to(tmp_path)


def test_the_stand_in_goes_with_its_process(tmp_path):
    (tmp_path / "file").touch()
    code = "from rankwise.machine import caches; print(caches.cache('tokens'))"
    environment = {**os.environ, "RANKWISE_CACHE": str(tmp_path / "file")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not os.path.exists(done.stdout.strip())  # noqa: PTH110


def test_what_was_used_longest_ago_goes_first_and_what_cannot_be_made_again_stays(own):
    for kind in ("tokens", "packaged", "looks"):
        (own / kind).mkdir(parents=True)
    for age, name in enumerate(("old", "older", "oldest")):
        entry = own / "tokens" / name
        entry.mkdir()
        (entry / "ids").write_bytes(b"x" * 100_000)
        for path in (entry / "ids", entry):
            os.utime(path, (1e9 - age, 1e9 - age))
    (own / "packaged" / "model").write_bytes(b"x" * 500_000)
    (own / "looks" / "rows.jsonl").write_bytes(b"x" * 500_000)
    caches.used(own / "tokens" / "oldest")
    caches.trim(own, 230_000)
    assert {path.name for path in (own / "tokens").iterdir()} == {"old", "oldest"}
    caches.trim(own, 0)
    assert list((own / "tokens").iterdir()) == []
    assert (own / "packaged" / "model").exists()
    assert (own / "looks" / "rows.jsonl").exists()


def test_a_disk_that_takes_no_more_ends_no_tokenising(tiny_model, tmp_path, monkeypatch):
    from transformers import AutoTokenizer

    from rankwise.data import tokens

    tokenizer = AutoTokenizer.from_pretrained(str(tiny_model))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokens, "_write", full)
    made = tokenise(["the match", "a goal ."], tokenizer, 16, tmp_path)
    assert [len(row) for row in made] == [4, 5]
