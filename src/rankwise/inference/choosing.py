"""What answers fastest on this machine, measured once and kept.

Which of the engine's kernels, torch's products or plain `transformers` is fastest depends on the processor, the threads and
the model's shape; a table of ours would be one of other machines.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rankwise import __version__, files
from rankwise.machine import caches, description, device
from rankwise.machine.isa import wanted
from rankwise.models.classifier import computing

_TEXTS = 32
_TOKENS = (4, 64)
"""of a text, at least and at most, as most texts that are classified have"""
_WARMUP = 2
_PASSES = 5


def fastest(shape: Mapping[str, Any], ways: Mapping[str, Callable[[], Any]], *, vocabulary: int, positions: int) -> str:
    """The name of the fastest way to compute a classifier, from the cache where it was measured before.

    shape
        All of the model that its speed depends on.
    ways
        By name, what makes a classifier that computes so.
    vocabulary, positions
        Tokens that it knows, and how many of a text it reads.
    """
    isa, accelerator = wanted(), device.accelerator_name()
    machine = [description.cpu(), None if isa is None else isa.name, torch.get_num_threads()]
    about = {
        "shape": dict(shape),
        "ways": list(ways),
        "machine": machine if accelerator is None else [*machine, accelerator],
        "versions": [__version__, torch.__version__],
    }
    name = hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
    place = caches.cache("engines") / f"{name}.json"
    if place.is_file():
        caches.used(place)
        kept = files.read_json(place).get("fastest")
        if kept in ways:
            return str(kept)
    texts = _probe(vocabulary, positions)
    seconds = {name: _seconds(make(), texts) for name, make in ways.items()}
    best = min(seconds, key=lambda name: seconds[name])
    rates = {name: round(_TEXTS / one, 1) for name, one in seconds.items()}
    with caches.optional():
        files.write_json(place, {**about, "texts_per_s": rates, "fastest": best})
    return best


def _probe(vocabulary: int, positions: int) -> list[np.ndarray]:
    """Texts of many lengths, as token ids."""
    chance = np.random.default_rng(0)
    low, high = (min(bound, positions) for bound in _TOKENS)
    return [chance.integers(0, vocabulary, length) for length in chance.integers(low, high + 1, _TEXTS)]


@torch.inference_mode()
def _seconds(classifier: Any, texts: Sequence[np.ndarray]) -> float:
    """The median of a few passes."""
    taken = []
    for _ in range(_WARMUP + _PASSES):
        started = time.perf_counter()
        with computing(classifier):
            classifier(classifier.collate(texts))
        device.wait()
        taken.append(time.perf_counter() - started)
    return float(np.median(taken[_WARMUP:]))
