"""What a run does elsewhere than on a processor, as far as a processor can tell: losses read behind, losses scaled, nothing asked."""

import json
import math
import time

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import rankwise
from rankwise.runs.folder import open_run
from rankwise.training import loop
from rankwise.training.stopping import Diverged
from training.runs import equal, interrupt_after, small, weights, with_keys


@pytest.fixture
def behind(monkeypatch):
    """Every loop reads a step's loss while the next one computes."""
    made = loop.Loop.__init__

    def init(self, *given, **named):
        made(self, *given, **named)
        assert not self.reads_behind, "on a processor it is read at once"
        self.reads_behind = True

    monkeypatch.setattr(loop.Loop, "__init__", init)


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_losses_that_are_read_behind_are_the_same(tiny_model, news, tmp_path, request, engine):
    tree = small(tiny_model, news, steps=8, eval_every=3, accumulate=2) | {"engine": engine}
    at_once = rankwise.train(tree, out=tmp_path / "at-once")
    request.getfixturevalue("behind")
    behind = rankwise.train(tree, out=tmp_path / "behind")
    assert equal(at_once, behind)
    assert (behind.path / "history.csv").read_text() == (at_once.path / "history.csv").read_text()


def test_a_run_that_reads_behind_goes_on_where_it_was_interrupted(tiny_model, news, tmp_path, behind, monkeypatch):
    tree = small(tiny_model, news, steps=9, eval_every=4) | {"engine": "fast"}
    whole = rankwise.train(tree, out=tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 6)
        with pytest.raises(KeyboardInterrupt):
            rankwise.train(tree, out=tmp_path / "parts")
    parts = rankwise.train(tree, out=tmp_path / "parts", resume=True)
    assert parts.result["sessions"] == [0, 6]
    assert equal(whole, parts)
    assert (parts.path / "history.csv").read_text() == (whole.path / "history.csv").read_text()


def test_a_loss_that_is_no_number_is_told_of_its_own_step(tiny_model, news, tmp_path, behind, monkeypatch):
    """The step after it has begun by then; nothing is scored or saved of either."""
    step = loop.Loop._train_step

    def broken(self):
        if self.state.step == 5:
            next(value for _, value in self._named_trainable()).data.fill_(math.nan)
        step(self)

    monkeypatch.setattr(loop.Loop, "_train_step", broken)
    tree = small(tiny_model, news, steps=20, eval_every=4)
    with pytest.raises(Diverged, match=r"at step 6: the loss is not finite.* best weights so far, of step 4, are in"):
        rankwise.train(tree, out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["reached"]["step"] == 5
    assert all(bool(value.isfinite().all()) for value in weights(open_run(tmp_path / "run")).values())
    wild = with_keys(tree, train__learning_rate=1e30, train__optimizer="sgd", train__max_grad_norm=None)
    for evaluated in (False, True):
        with pytest.raises(Diverged, match=r"diverged at step [1-4]: .* lower train.learning_rate, which is 1e\+30"):
            rankwise.train(with_keys(wild, train__evaluate=evaluated), out=tmp_path / f"wild-{evaluated}")


def test_waiting_for_the_last_step_before_an_evaluation_is_training(tiny_model, news, tmp_path, behind, monkeypatch):
    """So that examples a second are those of all steps."""
    read = loop.Reading.read

    def slow(self):
        time.sleep(0.3)
        return read(self)

    monkeypatch.setattr(loop.Reading, "read", slow)
    run = rankwise.train(small(tiny_model, news, steps=2, eval_every=1), out=tmp_path / "run")
    assert run.record.timing.train_s > 0.6


def test_a_run_in_fp16_scales_its_loss_and_is_proven(tiny_model, news, tmp_path, behind, monkeypatch):
    monkeypatch.setattr("rankwise.machine.precision.has_cuda", lambda: True)
    tree = with_keys(small(tiny_model, news, steps=9, eval_every=4), model__precision="fp16") | {"engine": "fast"}
    whole = rankwise.train(tree, out=tmp_path / "whole")
    exact = rankwise.train(with_keys(tree, model__precision="fp32"), out=tmp_path / "exact")
    assert whole.result["engine"]["path"] == "fast"
    assert whole.result["status"] == "finished"
    assert not equal(whole, exact)
    for name, value in weights(exact).items():
        assert torch.allclose(weights(whole)[name], value, atol=5e-3), name
    with monkeypatch.context() as patched:
        interrupt_after(patched, 6)
        with pytest.raises(KeyboardInterrupt):
            rankwise.train(tree, out=tmp_path / "parts")
    assert equal(whole, rankwise.train(tree, out=tmp_path / "parts", resume=True))


class _Asked(TorchDispatchMode):
    """Counts what a device would have to be waited for: numbers read, and shapes that depend on them."""

    waits = ("_local_scalar_dense", "nonzero", "item", "masked_select", "unique", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.waits:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("objective", ["cross_entropy", "contrastive"])
def test_a_step_asks_the_device_for_nothing(tiny_model, news, tmp_path, behind, monkeypatch, objective):
    """Neither the pass, the loss nor the update; what is read behind has its own way (`Reading`)."""
    step, asked = loop.Loop._train_step, []

    def watched(self):
        self.classifier.attention = "rectangles"  # torch's ragged one is made for CUDA, and asks on a processor
        with _Asked() as mode:
            step(self)
        self.classifier.attention = None  # what is proven is compared with the kernels' own way
        asked.append(mode.found)

    monkeypatch.setattr(loop.Loop, "_train_step", watched)
    monkeypatch.setattr(loop.Reading, "read", lambda self: [[1.0, 0.0]])
    tree = with_keys(small(tiny_model, news, steps=4, eval_every=4, objective=objective), train__max_grad_norm=1.0)
    rankwise.train(tree | {"engine": "fast"}, out=tmp_path / "run")
    assert len(asked) == 4
    assert asked[1:] == [[]] * 3
