"""The compiled kernels: made once, taken from the cache, of this version and nobody else's; which are chosen, and why."""

from __future__ import annotations

import ctypes
import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from engine.parity import adapted, texts, tiny
from engine.test_native import RUNNING, adapted_wide
from rankwise.engine import FastClassifier
from rankwise.engine.native import backend as backends
from rankwise.engine.native import building, library
from rankwise.engine.native.backend import Backend
from rankwise.errors import UserError
from rankwise.machine import isa as isas
from rankwise.machine.isa import ISAS

needs_kernels = pytest.mark.skipif(not RUNNING, reason="no C++ compiler here")


@needs_kernels
def test_compiled_once_and_then_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, "-O0"))  # nothing computes with it
    path = library._compiled("scalar")
    made_at = path.stat().st_mtime_ns
    assert library._compiled("scalar") == path
    assert path.stat().st_mtime_ns == made_at
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """Kernels made with a umask that leaves groups the right to write."""
    path = tmp_path_factory.mktemp("kernels") / "kernels.so"
    before = os.umask(0o002)
    try:
        building.build(building.compiler(), "scalar", path, flags=["-O0"])
    finally:
        os.umask(before)
    return path


@needs_kernels
def test_kernels_that_others_may_write_are_not_loaded(kernels, tmp_path):
    tmp_path.chmod(0o755)
    path = shutil.copy(kernels, tmp_path / "kernels.so")
    path.chmod(0o755)
    assert library.load(path).start() == 0
    for place in (path, tmp_path):
        place.chmod(0o777)
        with pytest.raises(library.UnavailableError, match="written by others"):
            library.load(path)
        place.chmod(0o755)


@needs_kernels
def test_kernels_made_where_groups_may_write_are_loaded(kernels):
    """With a umask of 002, many systems' default, they were compiled and then refused: torch computed, without a word."""
    kernels.parent.chmod(0o700)
    assert library.load(kernels).start() == 0


@needs_kernels
@pytest.mark.parametrize(("name", "members", "loaded"), [("me", [], True), ("me", ["you"], False), ("us", [], False)])
def test_a_group_of_the_user_alone_may_write_kernels(kernels, tmp_path, monkeypatch, name, members, loaded):
    """As `pip install` unpacks a wheel there."""
    path = shutil.copy(kernels, tmp_path / "kernels.so")
    monkeypatch.setattr("pwd.getpwuid", lambda user: SimpleNamespace(pw_name="me"))
    monkeypatch.setattr("grp.getgrgid", lambda group: SimpleNamespace(gr_name=name, gr_mem=members))
    for place, mode in ((path, 0o775), (tmp_path, 0o770)):
        place.chmod(mode)
    if loaded:
        assert library.load(path).start() == 0
    else:
        with pytest.raises(library.UnavailableError, match="written by others"):
            library.load(path)


@needs_kernels
def test_kernels_of_another_version_are_not_called(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "SHARED", (*backends.SHARED[:-1], ctypes.c_int))
    with pytest.raises(library.UnavailableError, match="another version"):
        Backend(ISAS["scalar"], library.library(ISAS["scalar"]))


@pytest.fixture
def nothing_known(monkeypatch):
    """No choice is remembered, before or after."""
    backends._named.cache_clear()
    yield
    backends._named.cache_clear()


@pytest.mark.parametrize(
    ("compiler", "said"),
    [("false", "could not make the kernels"), (None, "no C++ compiler")],
    ids=["fails", "is absent"],
)
def test_a_compiler_that_fails_leaves_plain_torch_and_says_so(tmp_path, monkeypatch, nothing_known, compiler, said):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(isas, "features", lambda: ISAS["avx2"].features)
    monkeypatch.setattr(ISAS["avx2"].__class__, "missing", lambda isa: None if isa.name == "avx2" else "not here")
    monkeypatch.setattr(library.building, "compiler", lambda: compiler)
    choice = backends.choose("fp32")
    assert choice.backend is None
    assert said in choice.reason
    classifier = FastClassifier.from_peft(adapted_wide("bert"), precision="fp32")
    assert classifier.computes_with == "torch"
    assert torch.isfinite(classifier(classifier.collate(texts()))).all()


def test_narrow_models_are_left_to_plain_torch():
    assert FastClassifier.from_peft(adapted(tiny("bert"), ["query"]), precision="bf16").computes_with == "torch"
    assert "not multiples of 32" in backends.choose("fp32", 48).reason


def test_the_instruction_set_that_is_named_is_taken(monkeypatch):
    monkeypatch.setenv("RANKWISE_ISA", "scalar")
    if RUNNING:
        assert FastClassifier.from_peft(adapted_wide("bert")).computes_with == "scalar"
    assert FastClassifier.from_peft(adapted_wide("bert"), precision="bf16").computes_with == "torch"
    monkeypatch.setenv("RANKWISE_ISA", "sse9")
    with pytest.raises(UserError, match="expected one of amx"):
        FastClassifier.from_peft(adapted_wide("bert"))
    absent = next(name for name, isa in ISAS.items() if isa.missing() is not None)
    monkeypatch.setenv("RANKWISE_ISA", absent)
    with pytest.raises(UserError, match="the processor"):
        FastClassifier.from_peft(adapted_wide("bert"))
