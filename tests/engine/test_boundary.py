"""Between Python and the kernels: what they cannot read is refused, and sanitizers see nothing they should not do."""

from __future__ import annotations

import copy
import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.parity import texts
from engine.test_native import adapted_wide, each, made
from rankwise.engine.native import backend as backends
from rankwise.engine.native import building
from rankwise.errors import UserError
from rankwise.machine import caches

HERE = Path(__file__).parent


@each
def test_a_token_that_the_embedding_lacks_is_refused(name):
    classifier = made(adapted_wide("bert"), name)
    with pytest.raises(UserError, match=r"numbered 120.*embedding has 120 rows"):
        classifier.collate([np.array([5, 120])])
    batch = classifier.collate(texts())
    for place, value in ((0, 120), (3, -1)):
        batch.ids[place] = value
        with pytest.raises(UserError, match="a token or a position"):
            classifier(batch)
        batch.ids[place] = 5


@each
def test_what_kernels_cannot_read_is_refused(name):
    classifier = made(adapted_wide("bert"), name)
    for broken in (lambda value: value.double(), lambda value: value.t().contiguous().t()):
        other = copy.deepcopy(classifier)
        chosen = next(other.layers[1].parameters())
        chosen.data = broken(chosen.data)
        with pytest.raises(ValueError, match="the kernels read"):
            other(other.collate(texts()))


@each
def test_shapes_that_kernels_would_read_beyond_are_refused(name):
    """They were read and written beyond their ends: the process ended, or the answer was of other memory."""
    backend = backends.named(name)
    weight = torch.zeros(64, 64, dtype=backend.precision)
    matrix = backend.matrix([weight])
    packed = backend.pack([weight])
    if backend.packs:
        matrix.panel = packed.data_ptr()
    x = torch.ones(3, 64, dtype=backend.precision)
    calls = {
        "too narrow": lambda: backend.product(matrix, x[:, :32], None, transposed=False),
        "one row as a vector": lambda: backend.product(matrix, x[0], None, transposed=False),
        "elsewhere": lambda: backend.product(matrix, x.to("meta"), None, transposed=False),
        "a short bias": lambda: backend.product(matrix, x, torch.zeros(2), transposed=False),
        "two depths": lambda: backend.matrix([weight, weight[:, :32].contiguous()]),
        "33 rows": lambda: backend.pack([torch.zeros(33, 64, dtype=backend.precision)]),
        "a part of what was packed": lambda: backend.unpack(packed[:10], 64, 64),
    }
    for said, call in calls.items():
        with pytest.raises(ValueError, match="the kernels read"):
            pytest.fail(f"{said}: {call()}")
    assert backend.product(matrix, x[:0], None, transposed=False).shape == (0, 64)
    apart = torch.zeros(128)[::2]
    assert torch.equal(backend.product(matrix, x, apart, transposed=False), torch.zeros_like(x))


@each
def test_a_trained_tensor_of_another_shape_is_refused(name):
    classifier = made(adapted_wide("bert"), name)
    chosen = next(value for key, value in classifier.named_parameters() if key.endswith("lora_A"))
    chosen.data = torch.zeros(1, chosen.shape[1])
    with pytest.raises(ValueError, match="of shape"):
        classifier(classifier.collate(texts()))


@each
def test_memory_that_is_not_given_is_an_error_of_python(name):
    backend = backends.named(name)
    x = torch.zeros(4, 64, dtype=backend.precision)
    weight = torch.zeros(64, 64, dtype=backend.precision)
    matrix = backend.matrix([weight])
    matrix.d_in = 2**50  # a panel or a tail of so many numbers
    matrix.panel = None
    with pytest.raises(MemoryError, match="a smaller one"):
        backend.call("product_of", ctypes.byref(matrix), 0, x.data_ptr(), 64, 4, None, x.data_ptr())


SCRIPT = """
import ctypes, sys
sys.path.insert(0, {tests!r})
import torch
from engine import test_native
from rankwise.engine.native.backend import Backend
from rankwise.machine.isa import ISAS
torch.set_num_threads(3)
MANY = (33, 70, 5)
backend = Backend(ISAS["scalar"], ctypes.CDLL({library!r}))
every_bias, dora = {{"bias": "all"}}, {{"use_dora": True, "r": 3}}
kinds = (("mpnet", every_bias, (1,)), ("mpnet", dora, MANY), ("modernbert", every_bias, MANY), ("deberta-v2", every_bias, MANY))
for model_type, options, lengths in kinds:
    peft = test_native.adapted_wide(model_type, test_native.EVERYWHERE, dropout=True, lora_dropout=0.1, **options)
    test_native.assert_equal(
        test_native.result(peft, backend, lengths=lengths),
        test_native.result(peft, "torch", "fp32", lengths=lengths),
    )
print("all equal")
"""


@pytest.mark.sampled(1, of="kernels built apart")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("library_of", "flags", "complaint"),
    [
        ("libasan.so", ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"], "AddressSanitizer"),
        ("libtsan.so", ["-fsanitize=thread"], "kernels-scalar-"),
    ],
    ids=["addresses and undefined behaviour", "threads"],
)
def test_sanitizers_find_nothing(library_of, flags, complaint):
    compiler = building.compiler()
    if compiler is None or not building.is_known_system():
        pytest.skip("no C++ compiler here")
    said = subprocess.run(
        [compiler, f"-print-file-name={library_of}"], capture_output=True, text=True, check=True
    ).stdout
    if not Path(said.strip()).is_absolute():
        pytest.skip(f"{compiler} has no {library_of}")
    target = building.kept(compiler, "scalar", caches.cache("sanitized"), flags=["-O1", "-g", *flags])
    script = SCRIPT.format(tests=str(HERE.parent), library=str(target))
    environment = {
        **os.environ,
        "LD_PRELOAD": said.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "report_bugs=1:exitcode=0",
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert "all equal" in done.stdout, done.stderr[-3000:]
    assert complaint not in done.stderr, done.stderr[:5000]
    assert "runtime error" not in done.stderr, done.stderr[:5000]
