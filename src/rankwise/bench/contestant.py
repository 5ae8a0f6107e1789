"""One variant of a measurement, in its own process: `python -m rankwise.bench.contestant VARIANT`.

Reads the setting and then commands from stdin, one a line; answers each with one line of JSON on stdout.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from rankwise.bench.command import Setting
from rankwise.bench.turns import Turns, answer
from rankwise.errors import UserError
from rankwise.machine.memory import keep_freed_memory


def main(variant: str) -> None:
    """Build the variant, warm up, and run turns until told to end."""
    setting = Setting(**json.loads(sys.stdin.readline()))
    try:
        from rankwise.bench import predicting, training

        if setting.threads:
            torch.set_num_threads(setting.threads)
        if variant.startswith("engine"):  # as its verbs do in their processes
            keep_freed_memory()
        module = training if setting.task == "train" else predicting
        module.run(variant, setting, Turns(setting))
    except UserError as error:
        answer(error=str(error))
    except torch.OutOfMemoryError:
        answer(
            error=f"there is no room for the variant '{variant}' beside the others in the GPU's memory: lower --batch-size "
            "or --max-length, or name fewer --variants"
        )


if __name__ == "__main__":
    main(sys.argv[1])
