"""A unit that no processor here need have."""

import ctypes
from pathlib import Path

import pytest

from rankwise.engine.native import building
from rankwise.engine.native.backend import Backend
from rankwise.machine.isa import ISAS


@pytest.fixture(scope="session")
def matrix_units(tmp_path_factory):
    """The unit for AMX with its instructions in software: its own arithmetic, on processors without."""
    if building.compiler() is None or ISAS["avx512bf16"].missing() is not None:
        pytest.skip("what is not matrix units in it is AVX-512 for bf16, which this processor lacks")
    target = tmp_path_factory.mktemp("amx") / "kernels-amx.so"
    tiles = Path(__file__).parent / "native_units" / "tiles.h"
    building.build(building.compiler(), "amx", target, flags=["-include", str(tiles)])
    return Backend(ISAS["amx"], ctypes.CDLL(str(target)))
