"""What answers fastest is measured once a machine, and kept."""

import json
import time

import numpy as np
import pytest

import rankwise
from rankwise.inference import choosing
from rankwise.machine import caches


@pytest.fixture
def folder(adapt):
    """An adapter that the fast engine can run."""
    return adapt()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    place = tmp_path / "cache"
    place.mkdir()
    monkeypatch.setattr(caches, "cache", lambda kind: place)
    return place


def test_the_fastest_is_measured_and_kept(folder, cache, monkeypatch):
    first = rankwise.load(folder, engine="auto")
    (kept,) = (json.loads(path.read_text()) for path in cache.glob("*.json"))
    assert kept["fastest"] == max(kept["texts_per_s"], key=kept["texts_per_s"].get)
    assert set(kept["texts_per_s"]) == {"kernels", "torch", "reference"}

    def measured(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(choosing, "_seconds", measured)
    again = rankwise.load(folder, engine="auto")
    assert again.computes_with == first.computes_with
    np.testing.assert_allclose(again.logits(["the goal"]), first.logits(["the goal"]))


@pytest.mark.parametrize(("best", "says"), [("reference", "reference"), ("torch", "torch")])
def test_what_is_fastest_answers(best, says, folder, cache, monkeypatch):
    order = iter(1.0 if name == best else 2.0 for name in ("kernels", "torch", "reference"))
    monkeypatch.setattr(choosing, "_seconds", lambda *_: next(order))
    assert rankwise.load(folder, engine="auto").computes_with.startswith(says)
    assert not rankwise.load(folder).computes_with.startswith("reference")  # the training's, unmeasured


def test_a_device_that_works_behind_the_host_is_waited_for(cache, monkeypatch):
    """What is soonest told what to do may take longest to do it; and what answers soonest on a device does not on the processor."""
    left = []

    class Way:
        def __init__(self, told_s, done_s):
            self.told_s, self.done_s = told_s, done_s

        def collate(self, texts):
            return texts

        def __call__(self, batch):
            time.sleep(self.told_s)
            left.append(self.done_s)

    def wait():
        time.sleep(sum(left))
        left.clear()

    ways = {"soon told": lambda: Way(0.0, 0.02), "soon done": lambda: Way(0.004, 0.0)}

    def fastest():
        return choosing.fastest({}, ways, vocabulary=10, positions=64)

    assert fastest() == "soon told"
    monkeypatch.setattr(choosing.device, "accelerator_name", lambda: "a device")
    monkeypatch.setattr(choosing.device, "wait", wait)
    left.clear()
    assert fastest() == "soon done"
