"""A process in an environment that has a target's library and what that declares to need, and nothing else."""

from __future__ import annotations

import json
import subprocess
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from packaging.requirements import Requirement

# One line of JSON asks: a folder, Python that defines `logits`, texts. Each is asked alone and again among the others.
_SERVANT = """
import json, sys
import numpy
for line in sys.stdin:
    asked = json.loads(line)
    folder, texts, known = asked["folder"], asked["texts"], list(sys.path)
    for name in ("predict", "cleaning"):
        sys.modules.pop(name, None)
    try:
        scope = {"folder": folder, "sys": sys}
        exec(asked["load"], scope)
        logits = scope["logits"]
        said = {
            "alone": [row for text in texts for row in numpy.asarray(logits([text])).tolist()],
            "together": numpy.asarray(logits(texts)).tolist(),
        }
    except BaseException as error:
        said = {"error": f"{type(error).__name__}: {error}"}
    sys.path[:] = known
    print(json.dumps(said), flush=True)
"""


class Environment:
    """A virtual environment with links to a few distributions and all that they declare to need."""

    def __init__(self, folder: Path, distributions: Sequence[str]) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        self.distributions = _with_needs(distributions)
        for name in self.distributions:
            found = metadata.distribution(name)
            for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
                (packages / top).symlink_to(found.locate_file(top))
        self._process = subprocess.Popen(
            [str(folder / "bin" / "python"), "-I", "-c", _SERVANT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "HOME": str(folder)},
        )

    def answers(self, folder: Path, texts: Sequence[str], load: str) -> tuple[np.ndarray, np.ndarray]:
        """Logits of each text asked alone, and of all in one batch. Shape of both: (texts, classes)"""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), "texts": list(texts), "load": load}) + "\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "error" not in said, said["error"]
        return np.array(said["alone"], np.float32), np.array(said["together"], np.float32)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def _with_needs(names: Sequence[str]) -> list[str]:
    """Distributions and, without extras, all that they need, as far as it is installed."""
    todo, found = list(names), []
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.append(name)
        for line in metadata.requires(name) or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                todo.append(need.name.lower().replace("_", "-"))
    return found
