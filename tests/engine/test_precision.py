"""The arithmetic that `auto` takes on a machine."""

from __future__ import annotations

import platform

import pytest
import torch

from rankwise.errors import UserError
from rankwise.machine.precision import as_precision, fastest, precision_of


@pytest.mark.parametrize(
    ("machine", "supported", "features", "expected"),
    [
        ("x86_64", True, {"avx512_bf16"}, "bf16"),
        ("AMD64", True, {"amx_tile"}, "bf16"),
        ("x86_64", True, set(), "fp32"),  # AVX-512 alone: oneDNN converts every number
        ("x86_64", False, set(), "fp32"),
        ("aarch64", True, set(), "bf16"),
        ("aarch64", False, set(), "fp32"),
    ],
)
def test_bf16_is_taken_where_the_processor_has_it(monkeypatch, machine, supported, features, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch._C, "_has_mkldnn", True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    for feature in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{feature}_supported", lambda has=feature in features: has, raising=False)
    assert fastest() == expected
    assert as_precision("auto") == {"bf16": torch.bfloat16, "fp32": torch.float32}[expected]


def test_a_named_precision_is_kept_and_an_unknown_one_refused():
    assert as_precision("bf16") == torch.bfloat16
    assert as_precision("fp16") == torch.float16
    with pytest.raises(UserError, match="fp32, bf16, fp16, int8, not fp8"):
        as_precision("fp8")


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_computes_in_half_precision(monkeypatch, has_bf16, expected):
    """A T4 multiplies fp16 with its tensor cores, and bf16 by emulation."""
    asked = []
    monkeypatch.setattr("rankwise.machine.precision.has_cuda", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: asked.append(including_emulation) or has_bf16
    )
    assert fastest() == precision_of("auto", "fast") == precision_of("auto", "reference") == expected
    assert asked == [False] * 3
