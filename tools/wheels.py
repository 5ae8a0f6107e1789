"""Make the wheels, a machine each, and try them: `make wheels`.

A wheel has the kernels of every instruction set of its machine and needs no compiler where it is installed. Each is checked
by auditwheel for the systems that its name promises. This machine's is installed in an environment of its own and must
compute with its kernels where there is no compiler; another's kernels are compared with the scalar ones in an emulator
(tests/engine/test_units.py). Without the other machine's compiler its wheel is left out, and said so.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPILERS = {"x86_64": "x86_64-linux-gnu-g++", "aarch64": "aarch64-linux-gnu-g++"}


def main() -> None:
    """Every machine's wheel in dist/."""
    for machine, cross in COMPILERS.items():
        compiler = os.environ.get("CXX", "g++") if machine == platform.machine() else cross
        if shutil.which(compiler) is None:
            print(f"{machine}: left out, there is no {compiler} (apt-get install g++-{machine}-linux-gnu qemu-user)")
            continue
        wheel = made(machine, compiler)
        subprocess.run([sys.executable, "-m", "auditwheel", "show", str(wheel)], check=True)
        with tempfile.TemporaryDirectory() as folder:
            (installed if machine == platform.machine() else emulated)(wheel, Path(folder))
        print(f"{machine}: {wheel.relative_to(ROOT)}")


def made(machine: str, compiler: str) -> Path:
    """The wheel for a machine."""
    environment = {**os.environ, "RANKWISE_WHEEL_MACHINE": machine, "CXX": compiler}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(ROOT / "dist")]
    for old in (ROOT / "dist").glob(f"*_{machine}.whl"):
        old.unlink()
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    (wheel,) = (ROOT / "dist").glob(f"*_{machine}.whl")
    return wheel


def installed(wheel: Path, folder: Path) -> None:
    """Install it in an empty environment, and see that it computes with its own kernels where there is no compiler."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        str(ROOT / "constraints.txt"),
        str(wheel),
    ]
    subprocess.run(install, check=True)
    environment = {"PATH": str(folder / "bin"), "HOME": str(folder), "CXX": ""}
    asked = [str(python), "-m", "rankwise", "doctor", "--json"]
    said = subprocess.run(asked, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout
    taken = {precision: choice["takes"] for precision, choice in json.loads(said)["backends"].items()}
    print(f"{wheel.name} computes with {taken}")
    if set(taken.values()) == {"torch"}:
        raise SystemExit(f"{wheel.name} does not compute with its kernels: {said}")


def emulated(wheel: Path, folder: Path) -> None:
    """Compare the kernels of another machine's wheel with the scalar ones in an emulator."""
    with zipfile.ZipFile(wheel) as archive:
        kernels = [name for name in archive.namelist() if name.endswith(".so")]
        archive.extractall(folder, members=kernels)
    environment = {**os.environ, "RANKWISE_TEST_KERNELS": str((folder / kernels[0]).parent)}
    test = [sys.executable, "-m", "pytest", "-q", "--exhaustive", "tests/engine/test_units.py", "-k", "arm"]
    subprocess.run(test, cwd=ROOT, env=environment, check=True)


if __name__ == "__main__":
    main()
