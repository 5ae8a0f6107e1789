"""Dropout whose mask is computed again in the backward pass, never stored.

The mask of a (rows, columns) tensor is a hash of the element's row and column: the 32-bit product of a random odd
number drawn for the row and one fixed for the column. Multiplication by a random odd number is a universal hash
(Dietzfelbinger et al. 1997, "A reliable randomized algorithm for the closest-pair problem"), so its high bits are
uniform, and independent for different rows and columns. What a mask needs is therefore one number a row: 4 bytes
instead of 4 bytes an element, and three cheap passes in plain torch, or none in a fused kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from rankwise.machine.transfer import sent

POOL = 2**14
"""numbers of rows drawn at once, at least: a draw for each mask costs more than its numbers do"""
SLACK = 32
"""numbers behind a mask's last column that may be read in vectors, and are of no effect"""


@dataclass(frozen=True)
class Mask:
    """A dropout mask, by what it is computed from."""

    rows: Tensor
    """random odd int32. Shape: (rows, 1)"""
    columns: Tensor
    """random odd int32. Shape: (columns,)"""
    rate: float

    def multiplier(self) -> Tensor:
        """What to multiply a tensor with: 0 where dropped, 1 / (1 - rate) where kept.

        All in int32, since a bool comparison is slow to make and slow to convert: 0 or 1, times the bits of the scale.

        Returns: fp32, fresh memory. Shape: (rows, columns)
        """
        limit, scale = _constants(self.rate, self.rows.device)
        return (self.rows * self.columns).lt_(limit).mul_(scale).view(torch.float32)


def constants(rate: float) -> tuple[int, float]:
    """The limit below which a hash, as a signed number, keeps its element; and 1 / (1 - rate)."""
    return round((1.0 - rate) * 2**32) - 2**31, 1.0 / (1.0 - rate)


@cache
def _constants(rate: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """The limit and the bits of the scale, as tensors, since a number would be made one in every call. Shape of both: ()"""
    limit, scale = constants(rate)
    bits = torch.tensor(scale, dtype=torch.float32).view(torch.int32)
    return torch.tensor(limit, dtype=torch.int32, device=device), bits.to(device)


class Stream:
    """Masks as a function of (seed, step), drawn in the order of the forward pass.

    A step may have several forward passes (accumulation); `begin` counts them.
    """

    def __init__(self, seed: int, columns: int) -> None:
        self.seed = seed
        self.step = 0
        self.passes = 0
        self.columns = _odd(columns + SLACK, _generator(seed, 0, 0))
        """numbers of the columns of all masks. Shape: (columns + SLACK,)"""
        self._drawn = 0
        self.begin(self.columns.device)
        self.passes = 0

    def set_step(self, step: int) -> None:
        """The next forward pass is the step's first."""
        self.step, self.passes = step, 0

    def begin(self, device: torch.device) -> int:
        """Start a forward pass. Returns: its seed, for masks that are drawn elsewhere"""
        self._generator = _generator(self.seed, self.step + 1, self.passes)
        self.columns = self.columns.to(device)
        self._pool, self._expected, self._drawn = self.columns[:0], max(self._drawn, POOL), 0
        self.passes += 1
        return int(self._generator.integers(2**31))

    def mask(self, rows: int, columns: int, rate: float) -> Mask | None:
        """A fresh mask, or None where nothing is dropped."""
        return None if rate == 0.0 else Mask(self.draw(rows)[:, None], self.columns[:columns], rate)

    def draw(self, rows: int) -> Tensor:
        """Numbers of the rows of masks: of several together the same ones as of each in turn. Shape: (rows,)"""
        self._drawn += rows
        if len(self._pool) < rows:  # as many as the last pass took, so that one draw is most often enough
            more = sent(_odd(max(rows - len(self._pool), self._expected), self._generator), self.columns.device)
            self._pool, self._expected = torch.cat([self._pool, more]) if len(self._pool) else more, POOL
        drawn, self._pool = self._pool[:rows], self._pool[rows:]
        return drawn


def _odd(count: int, generator: np.random.Generator) -> Tensor:
    """Random odd int32. Shape: (count,)"""
    numbers = generator.integers(2**32, size=count, dtype=np.uint32)
    numbers |= 1
    return torch.from_numpy(numbers.view(np.int32))


def _generator(*numbers: int) -> np.random.Generator:
    """A generator seeded with all the numbers, mixed. NumPy's SFC64 draws five times as fast as torch's on a CPU."""
    return np.random.Generator(np.random.SFC64(numbers))
