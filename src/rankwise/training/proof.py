"""The proof that a saved adapter, loaded into a fresh base, is the live model."""

from __future__ import annotations

import msgspec
import numpy as np

from rankwise.config import Config
from rankwise.machine.precision import precision_of
from rankwise.methods import method_of
from rankwise.planning.ledger import head_kind

# Rows whose logits the reloaded adapter must repeat, and how far apart they may be: both models do the same
# arithmetic on the same path, so anything above rounding means that something trained is not in the file.
ROWS = 64
TOLERANCE = 1e-5


def config_of(config: Config, engine: str) -> Config:
    """The configuration under which the live and the reloaded model are compared: almost always the run's own.

    Where the file holds the trained update in another form than the live model (PiSSA and OLoRA as plain LoRA, a
    low-rank head merged), the two are other sums of the same numbers. In half precision they round apart by more than
    a lost tensor of a short run would, so both are computed in fp32.
    """
    converted = method_of(config).converts(config.adapter) or head_kind(config) == "low_rank"
    if not converted or precision_of(config.model.precision, engine) == "fp32":
        return config
    return msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, precision="fp32"))


def prove_equal(live: np.ndarray, reloaded: np.ndarray) -> float:
    """The largest difference between the live and the reloaded model's logits. Shape of each: (rows, classes)

    Raises: RuntimeError when it is above rounding: the file lacks something that was trained.
    """
    difference = float(np.abs(live - reloaded).max())
    scale = max(1.0, float(np.abs(live).max()))
    if not difference <= TOLERANCE * scale:
        raise RuntimeError(
            f"the saved adapter does not repeat the live model: logits differ by {difference:.3g}; "
            "the run's checkpoint is kept, please report this"
        )
    return difference
