"""The proof that a saved adapter, loaded into a fresh base, is the live model."""

from __future__ import annotations

import numpy as np

from rankwise.config import Config
from rankwise.config.methods import MUTATING
from rankwise.models.arithmetic import precision_of
from rankwise.planning.ledger import head_kind

# Rows whose logits the reloaded adapter must repeat, and how far apart they may be: both models do the same
# arithmetic on the same path, so anything above rounding means that something trained is not in the file.
ROWS = 64
TOLERANCE = 1e-5
# Where the file holds the trained update in another form than the live model (PiSSA and OLoRA as plain LoRA, a low-rank
# head merged), bf16 rounds the two sums differently; what a missing tensor does is larger still.
TOLERANCE_OF_ANOTHER_SUM = 5e-2


def tolerance_of(config: Config, engine: str) -> float:
    """How far the reloaded model's logits may be from the live one's, relative to the largest."""
    exact = precision_of(config.model.precision, engine) == "fp32"
    # The fast engine's head is fp32 in any case.
    converted = config.adapter.init in MUTATING or (head_kind(config) == "low_rank" and engine != "fast")
    return TOLERANCE_OF_ANOTHER_SUM if converted and not exact else TOLERANCE


def prove_equal(live: np.ndarray, reloaded: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """The largest difference between the live and the reloaded model's logits. Shape of each: (rows, classes)

    Raises: RuntimeError when it is above rounding: the file lacks something that was trained.
    """
    difference = float(np.abs(live - reloaded).max())
    scale = max(1.0, float(np.abs(live).max()))
    if not difference <= tolerance * scale:
        raise RuntimeError(
            f"the saved adapter does not repeat the live model: logits differ by {difference:.3g}; "
            "the run's checkpoint is kept, please report this"
        )
    return difference
