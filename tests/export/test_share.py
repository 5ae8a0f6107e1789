"""Sharing: what would go is said without a network, a refusal is one sentence, and a copy that differs is seen."""

import json
import shutil
from types import SimpleNamespace

import pytest

from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.export.share import share


@pytest.fixture
def no_network(monkeypatch):
    import socket

    def refused(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)


def test_a_dry_run_says_every_file_and_asks_nothing(bases, adapter_of, no_network, capsys):
    adapter = adapter_of(bases["bert"])
    assert main(["share", str(adapter), "me/mine", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == {file.name: file.stat().st_size for file in adapter.iterdir()}
    assert told["bytes"] == sum(told["files"].values())
    assert "others must give base=FOLDER" in told["notes"][0]
    assert "address" not in told


def test_a_refused_network_is_one_sentence(bases, adapter_of, capsys):
    assert main(["share", str(adapter_of(bases["bert"])), "me/mine"]) == 2  # tests run with the Hub switched off
    assert "the Hub does not take me/mine" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mine", "a/b/c", "me/..", "me/m ine"])
def test_names_that_are_none(name, bases, adapter_of):
    with pytest.raises(UserError, match="no name on the Hub"):
        share(adapter_of(bases["bert"]), name, dry_run=True)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that is a folder."""
    import huggingface_hub

    place = tmp_path / "hub"

    class Api:
        def create_repo(self, name, **_):
            place.mkdir()
            return f"https://hub.example/{name}"

        def upload_folder(self, *, repo_id, folder_path, allow_patterns, **_):
            for file in allow_patterns:
                shutil.copyfile(folder_path / file, place / file)
            return SimpleNamespace(oid="c0ffee")

    def download(name, *, revision, local_dir):
        assert revision == "c0ffee"
        shutil.copytree(place, local_dir, dirs_exist_ok=True)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return place


def test_the_copy_is_read_back(bases, adapter_of, hub):
    told = share(adapter_of(bases["bert"]), "me/mine")
    assert told["commit"] == "c0ffee"
    assert {file.name for file in hub.iterdir()} == set(told["files"])


def test_a_copy_that_answers_otherwise_is_refused(bases, adapter_of, hub, monkeypatch):
    import huggingface_hub

    honest = huggingface_hub.snapshot_download

    def swapped(name, **options):
        honest(name, **options)
        _halve(f"{options['local_dir']}/adapter_model.safetensors")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", swapped)
    with pytest.raises(UserError, match="does not answer as the adapter here"):
        share(adapter_of(bases["bert"]), "me/mine")


def _halve(path):
    from safetensors.torch import load_file, save_file

    save_file({name: value / 2 for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
