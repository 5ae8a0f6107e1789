"""Units held to the scalar one without Python or torch: those of this processor, and 64-bit Arm's in an emulator.

`native_units/compare.cpp` computes random layers in both, forward and backward, with every kind of adapter.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from rankwise.engine.native import building
from rankwise.machine.isa import ISAS

HERE = Path(__file__).parent
CROSS, EMULATOR = "aarch64-linux-gnu-g++", ("qemu-aarch64", "-cpu", "max", "-L", "/usr/aarch64-linux-gnu")
BOUNDS = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.1}
"""by precision, as `test_native` and `test_int8` have them"""
pytestmark = pytest.mark.skipif(building.compiler() is None, reason="no C++ compiler here")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """By a compiler: the folder of the program that compares, and of the units it was asked for."""
    folders = {}

    def folder_of(compiler, units):
        if compiler not in folders:
            folders[compiler] = tmp_path_factory.mktemp("units")
            # OpenMP's library is linked though nothing here calls it: units find it in the program, as torch's elsewhere.
            flags = ["-std=c++17", "-O1", "-Wno-psabi", "-fno-strict-aliasing", "-fopenmp", f"-I{building.HERE}"]
            program = ["-o", str(folders[compiler] / "compare"), "-rdynamic", "-Wl,--no-as-needed", "-lgomp", "-ldl"]
            subprocess.run([compiler, *flags, str(HERE / "native_units" / "compare.cpp"), *program], check=True)
        for unit in units:
            target = folders[compiler] / building.built(unit).name
            of_wheel = Path(os.environ.get("RANKWISE_TEST_KERNELS", "")) / target.name
            if of_wheel.is_file():
                shutil.copy(of_wheel, target)
            elif not target.exists():
                building.build(compiler, unit, target)
        return folders[compiler]

    return folder_of


def assert_close(folder, unit, run=()):
    """A unit's layers are the scalar unit's, within rounding; run by an emulator, or as they are."""
    libraries = [str(folder / building.built(name).name) for name in ("scalar", unit)]
    command = [*run, str(folder / "compare"), *libraries, str(BOUNDS[ISAS[unit].precision])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("unit", building.MACHINES["x86_64"])
def test_a_unit_of_this_processor_equals_the_scalar_one(unit, compiled):
    if (reason := ISAS[unit].missing()) is not None:
        pytest.skip(reason)
    assert_close(compiled(building.compiler(), ("scalar", unit)), unit)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("unit", building.MACHINES["aarch64"])
def test_a_unit_for_arm_equals_the_scalar_one(unit, compiled):
    if ISAS[unit].missing() is None:
        assert_close(compiled(building.compiler(), ("scalar", unit)), unit)
        return
    for tool in (CROSS, EMULATOR[0]):
        if platform.system() != "Linux" or shutil.which(tool) is None:
            pytest.skip(f"no {tool} here: apt-get install g++-aarch64-linux-gnu qemu-user")
    assert_close(compiled(CROSS, ("scalar", unit)), unit, EMULATOR)
