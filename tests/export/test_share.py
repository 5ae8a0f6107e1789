"""Sharing: what would go is said without a network, a refusal is one sentence, and a copy that differs is seen."""

import json

import pytest

import processes
from rankwise.cli import main
from rankwise.errors import UserError
from rankwise.export.share import share

from .hub import COMMIT, Hub


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
def hub():
    made = Hub()
    yield made
    made.close()


def shared_with(hub, adapter, *options):
    """`rankwise share` in a process whose Hub is this one, by the Hub's own client."""
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_of_a_test",
        "HF_HOME": str(adapter.parent / "home"),
    }
    return processes.finished("share", adapter, "me/mine", *options, environment=environment)


def test_the_copy_is_read_back(bases, adapter_of, hub):
    adapter = adapter_of(bases["bert"])
    outcome = shared_with(hub, adapter, "--json")
    assert outcome.returncode == 0, outcome.err
    told = json.loads(outcome.out)
    assert told["commit"] == COMMIT
    assert told["address"] == f"{hub.url}/me/mine"
    assert hub.files == {file.name: file.read_bytes() for file in adapter.iterdir()}
    assert told["files"] == {name: len(content) for name, content in hub.files.items()}
    read_back = {asked.partition(f"/resolve/{COMMIT}/")[2] for asked in hub.asked if asked.startswith("GET")}
    assert set(hub.files) <= read_back


def test_a_dry_run_asks_the_hub_nothing(bases, adapter_of, hub):
    outcome = shared_with(hub, adapter_of(bases["bert"]), "--dry-run")
    assert outcome.returncode == 0, outcome.err
    assert hub.asked == []


def halved(name, content):
    """A file whose weights are others."""
    from safetensors.torch import load, save

    if not name.endswith(".safetensors"):
        return content
    return save({key: value / 2 for key, value in load(content).items()}, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (halved, "does not answer as the adapter here"),
        (lambda name, content: None if name == "rankwise.json" else content, "lacks rankwise.json"),
    ],
    ids=["other weights", "a file missing"],
)
def test_a_copy_that_is_another_is_refused(changed, said, bases, adapter_of, hub):
    hub.changed = changed
    outcome = shared_with(hub, adapter_of(bases["bert"]))
    assert outcome.returncode == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_of_the_hub_is_one_sentence(status, bases, adapter_of, hub):
    hub.refuse = status
    outcome = shared_with(hub, adapter_of(bases["bert"]))
    assert outcome.returncode == 2
    *_, line = [line for line in outcome.err.splitlines() if line.strip()]
    assert "the Hub does not take me/mine" in line
    assert "Traceback" not in outcome.err


def test_a_hub_that_is_not_there_is_one_sentence(bases, adapter_of, hub):
    adapter = adapter_of(bases["bert"])
    hub.close()
    outcome = shared_with(hub, adapter)
    assert outcome.returncode == 2
    *_, line = [line for line in outcome.err.splitlines() if line.strip()]
    assert "the Hub does not take me/mine" in line
    assert "Traceback" not in outcome.err
