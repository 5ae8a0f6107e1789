"""A fresh process that has an artefact's folder and the target's library, and nothing of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise.errors import UserError

LIMIT_S = 600
"""after which a process that answers a few dozen texts hangs"""

# Texts come in and logits go out as JSON; every text is asked alone and again among the others, padded.
_PROGRAM = """
import json, sys
folder, unwanted = sys.argv[1], sys.argv[2].split(",")
texts = json.load(sys.stdin)
{load}
alone = [row for text in texts for row in numpy.asarray(logits([text])).tolist()]
together = numpy.asarray(logits(texts)).tolist()
print(json.dumps({{"alone": alone, "together": together,
                  "unwanted": [name for name in unwanted if name in sys.modules]}}))
"""

SHIPPED = "import numpy; sys.path.insert(0, folder); from predict import logits"
"""the program that lies in the artefact's folder answers"""


SHIPPED_ONE_BY_ONE = f"{SHIPPED}; together_logits = logits; logits = lambda texts: numpy.concatenate([together_logits([t]) for t in texts])"
"""the same where a text's rounding depends on those it is asked with"""


def answers(
    folder: Path, texts: Sequence[Any], *, load: str, unwanted: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits of each text, or pair of texts, asked alone, and of all of them in one batch. Shape of both: (texts, classes)

    load
        Python that defines `logits` and imports numpy; `folder` is the artefact's.
    unwanted
        Packages that the artefact must do without.

    Raises: UserError when the process fails, with its last line, or imported what it should not need.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    environment.pop("PYTHONPATH", None)
    names = ("rankwise", *unwanted)
    try:
        outcome = subprocess.run(
            [sys.executable, "-I", "-c", _PROGRAM.format(load=load), str(folder), ",".join(names)],
            input=json.dumps(list(texts)),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"the artefact gives no answer in a fresh process within {LIMIT_S} s; nothing was written"
        ) from error
    if outcome.returncode != 0:
        last = (outcome.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"the artefact fails in a fresh process: {last[:300]}; nothing was written")
    said = json.loads(outcome.stdout.strip().splitlines()[-1])
    if said["unwanted"]:
        raise UserError(f"the artefact needs {', '.join(said['unwanted'])}, which it should do without")
    return np.array(said["alone"], np.float32), np.array(said["together"], np.float32)
