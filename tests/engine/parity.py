"""The one assertion, that the engine equals transformers + peft, and the tiny models it is made of."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from engine.models import (  # noqa: F401 (tests take them from here)
    CLASSES,
    CONFIGS,
    LENGTHS,
    Result,
    adapted,
    distance,
    engine,
    error,
    modules,
    padded,
    reference,
    result_of,
    texts,
    tiny,
    worst,
)

# Largest relative error allowed of a whole tensor, |ours - theirs| / |theirs|, by precision. bf16 has no fixed
# bound: it is held to autocast's own error.
TOLERANCE = {"fp32": 1e-4}


def assert_parity(peft: nn.Module, rows: list[np.ndarray] | None = None) -> None:
    """Logits, loss and every gradient equal transformers' and peft's, in fp32."""
    rows = rows or texts()
    off, name = worst(reference(peft, rows), engine(peft, rows))
    assert off < TOLERANCE["fp32"], f"{name}: {off:.2e}"


families = pytest.mark.parametrize("model_type", CONFIGS)
