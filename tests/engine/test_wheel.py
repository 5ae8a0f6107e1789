"""A wheel brings the kernels compiled; it is made with hatchling, as `pip` would."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rankwise.engine.native import building
from rankwise.engine.native.backend import choose
from rankwise.machine import caches
from rankwise.machine.isa import ISAS

ROOT = Path(__file__).parents[2]
needs_compiler = pytest.mark.skipif(
    building.compiler() is None or not building.is_known_system(),
    reason="no C++ compiler, or a system without kernels, here",
)


def wheel(folder: Path, **environment: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True, capture_output=True)
    (made,) = folder.iterdir()
    return made


@pytest.fixture
def no_compiler(tmp_path) -> dict[str, str]:
    """An environment in which Python is found and no compiler is."""
    (tmp_path / "bin").mkdir()
    assert shutil.which("g++", path=str(tmp_path / "bin")) is None
    return {"PATH": str(tmp_path / "bin"), "CXX": ""}


@pytest.fixture
def hasty(tmp_path) -> str:
    """A compiler that leaves out what takes most of its time: a unit as it is shipped is what the other tests compute with."""
    path = tmp_path / "hasty"
    path.write_text(f'#!/bin/sh\nexec {shutil.which(building.compiler())} "$@" -O0\n')
    path.chmod(0o755)
    return str(path)


@needs_compiler
def test_the_kernels_run_on_older_systems_than_the_one_that_made_them():
    """Colab's C library is 2.35, Kaggle's 2.35, RHEL 8's 2.28."""
    folder = caches.cache("native")
    for unit in building.MACHINES[platform.machine()]:
        if ISAS[unit].missing() is None:
            assert building.oldest_libc(building.kept(building.compiler(), unit, folder)) <= (2, 28)


@needs_compiler
@pytest.mark.sampled(1, of="kernels built apart")
@pytest.mark.slow
def test_a_wheel_has_the_kernels_and_needs_no_compiler(tmp_path, no_compiler, hasty):
    made = wheel(tmp_path / "dist", CXX=hasty)
    (minor,) = re.findall(rf"-py3-none-manylinux_2_(\d+)_{platform.machine()}\.whl$", made.name)
    assert int(minor) <= 28
    with zipfile.ZipFile(made) as archive:
        archive.extractall(tmp_path / "site")
    units = building.MACHINES[platform.machine()]
    assert all((tmp_path / f"site/rankwise/engine/native/kernels-{unit}.so").is_file() for unit in units)
    taken = choose("fp32").backend
    if taken is None:
        pytest.skip("the wheel has them; no instruction set for them here to load them")
    asked = (
        "from rankwise.engine.native import library\n"
        "from rankwise.engine.native.backend import choose\n"
        "print(library.__file__, choose('fp32').backend is not None)"
    )
    environment = {**os.environ, **no_compiler, "RANKWISE_CACHE": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = str(tmp_path / "site")
    said = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert said.stdout.split() == [str(tmp_path / "site/rankwise/engine/native/library.py"), "True"]


def test_without_a_compiler_a_wheel_is_pure(tmp_path, no_compiler):
    made = wheel(tmp_path / "dist", **no_compiler)
    assert made.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(made) as archive:
        for source in ("library.h", "avx2.cpp", "layer.h"):
            assert f"rankwise/engine/native/{source}" in archive.namelist()
        assert not any(name.endswith(".so") for name in archive.namelist())
