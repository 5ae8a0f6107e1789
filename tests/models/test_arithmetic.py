"""Which way a classifier computes."""

from __future__ import annotations

import shutil

import pytest
import torch

from rankwise.errors import UserError
from rankwise.machine.precision import STEPS_THAT_REPAY_COMPILING, compiles

LONG = STEPS_THAT_REPAY_COMPILING


@pytest.mark.parametrize(
    ("wanted", "engine", "steps", "compiler", "precision", "expected"),
    [
        ("auto", "fast", LONG, True, "bf16", True),
        ("auto", "fast", LONG, True, "fp32", False),
        ("auto", "fast", LONG - 1, True, "bf16", False),
        ("auto", "fast", LONG, False, "bf16", False),
        ("auto", "reference", LONG, True, "bf16", False),
        ("off", "fast", LONG, True, "bf16", False),
        ("on", "fast", 1, True, "fp32", True),
    ],
)
def test_compiling_has_to_repay_itself(monkeypatch, wanted, engine, steps, compiler, precision, expected):
    monkeypatch.setattr("rankwise.machine.precision.fastest", lambda: precision)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if compiler else None)
    assert compiles(wanted, engine, steps) is expected


def test_compiling_that_cannot_be_had_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        compiles("on", "fast", 1)
    with pytest.raises(UserError, match="train.compile: on is for the fast engine"):
        compiles("on", "reference", 1)
