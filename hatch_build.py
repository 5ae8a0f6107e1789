"""A wheel carries the engine's kernels compiled, where the machine that makes it can; else it is pure Python."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "rankwise/engine/native"


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Build the kernels into the wheel. An editable install compiles them at first use, from the source it runs.

    RANKWISE_WHEEL_MACHINE names another machine than this one, for which CXX compiles.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tell hatchling of the file and of the platform that it is for."""
        building = _load(Path(self.root) / "src" / PACKAGE / "building.py")
        compiler = building.compiler()
        machine = os.environ.get("RANKWISE_WHEEL_MACHINE") or platform.machine()
        if (
            version == "editable"
            or compiler is None
            or platform.system() != "Linux"
            or machine not in building.MACHINES
        ):
            return
        self.made = tempfile.TemporaryDirectory()
        oldest = (2, 17)
        for unit in building.MACHINES[machine]:
            built = Path(self.made.name) / building.built(unit).name
            try:
                building.build(compiler, unit, built, flags=["-s"])
            except subprocess.CalledProcessError:  # too old for the instructions
                continue
            build_data["force_include"][str(built)] = f"{PACKAGE}/{built.name}"
            build_data["pure_python"] = False
            # Linked with nothing but the C and C++ libraries; what is asked of them says how old they may be. (The C++
            # library is not linked in: it would ask for younger parts of C's than the units do.)
            oldest = max(oldest, building.oldest_libc(built))
            build_data["tag"] = f"py3-none-manylinux_{oldest[0]}_{oldest[1]}_{machine}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clear up."""
        if hasattr(self, "made"):
            self.made.cleanup()


def _load(path: Path) -> Any:
    """A module by its file: the package around it needs torch."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
