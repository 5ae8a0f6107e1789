"""Units held to the scalar one without Python or torch: those of this processor, and 64-bit Arm's in an emulator.

`native_units/compare.cpp` computes random layers in both, forward and backward, with every kind of adapter.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from rankwise.engine.native import building
from rankwise.machine import caches
from rankwise.machine.isa import ISAS

HERE = Path(__file__).parent
CROSS, EMULATOR = "aarch64-linux-gnu-g++", ("qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu")
BOUNDS = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.1}
"""by precision, as `test_native` and `test_int8` have them"""
pytestmark = pytest.mark.skipif(building.compiler() is None, reason="no C++ compiler here")


def program(compiler):
    """The program that compares, compiled once for all runs of the tests."""
    flags, linked = ["-std=c++17", "-O1", "-Wno-psabi", "-fno-strict-aliasing"], ["-ldl"]
    source = HERE / "native_units" / "compare.cpp"
    content = [file.read_bytes() for file in (source, *sorted(building.HERE.glob("*.h")))]
    content += [" ".join([compiler, *flags, *linked]).encode()]
    flags.append(f"-I{building.HERE}")
    made = caches.cache("compared") / f"compare-{hashlib.sha256(bytes(1).join(content)).hexdigest()[:16]}"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            subprocess.run([compiler, *flags, str(source), "-o", f"{folder}/compare", *linked], check=True)
            Path(folder, "compare").replace(made)
    return made


def library(compiler, unit):
    """A unit as the wheel under test has it, or compiled once for all runs of the tests: this processor's with the engine."""
    of_wheel = Path(os.environ.get("RANKWISE_TEST_KERNELS", "")) / building.built(unit).name
    folder = caches.cache("compared" if compiler == CROSS else "native")
    return of_wheel if of_wheel.is_file() else building.kept(compiler, unit, folder)


def assert_close(compiler, unit, run=()):
    """A unit's layers are the scalar unit's, within rounding; run by an emulator, or as they are."""
    libraries = [str(library(compiler, name)) for name in ("scalar", unit)]
    command = [*run, str(program(compiler)), *libraries, str(BOUNDS[ISAS[unit].precision])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", building.MACHINES["x86_64"])
def test_a_unit_of_this_processor_equals_the_scalar_one(unit):
    if (reason := ISAS[unit].missing()) is not None:
        pytest.skip(reason)
    assert_close(building.compiler(), unit)


@pytest.mark.sampled(1, of="kernels built apart")
@pytest.mark.slow
@pytest.mark.parametrize("unit", building.MACHINES["aarch64"])
def test_a_unit_for_arm_equals_the_scalar_one(unit):
    if ISAS[unit].missing() is None:
        assert_close(building.compiler(), unit)
        return
    for tool in (CROSS, EMULATOR[0]):
        if platform.system() != "Linux" or shutil.which(tool) is None:
            pytest.skip(f"no {tool} here: apt-get install g++-aarch64-linux-gnu qemu-user")
    assert_close(CROSS, unit, EMULATOR)
