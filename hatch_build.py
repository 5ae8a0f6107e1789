"""A wheel carries the engine's kernels compiled, where the machine that makes it can; else it is pure Python."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "rankwise/engine/native"


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Build the kernels into the wheel. An editable install compiles them at first use, from the source it runs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tell hatchling of the file and of the platform that it is for."""
        building = _load(Path(self.root) / "src" / PACKAGE / "building.py")
        compiler = building.compiler()
        if version == "editable" or compiler is None or not building.is_known_system():
            return
        self.made = tempfile.TemporaryDirectory()
        for unit in building.MACHINES[platform.machine()]:
            built = Path(self.made.name) / building.built(unit).name
            try:
                building.build(compiler, unit, built)
            except subprocess.CalledProcessError:  # too old for the instructions
                continue
            build_data["force_include"][str(built)] = f"{PACKAGE}/{built.name}"
            build_data["pure_python"] = False
            # Linked with nothing but the C and C++ libraries, so it runs wherever this C library or a later one is.
            libc = "_".join(platform.libc_ver()[1].split("."))
            build_data["tag"] = f"py3-none-manylinux_{libc}_{platform.machine()}"

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
