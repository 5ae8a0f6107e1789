"""Rows of several classifiers in one pass of a backend's kernels (several.h)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from ctypes import addressof

import numpy as np
from torch import Tensor, nn

from rankwise.engine.changes import Change
from rankwise.engine.layer import Norm
from rankwise.engine.linear import Sites
from rankwise.engine.native import structures
from rankwise.engine.native.backend import Backend, where


class Changes:
    """What a classifier changes of a base, as the kernels take it."""

    def __init__(
        self,
        backend: Backend,
        all_sites: Sequence[Sites],
        norms: Sequence[Norm],
        changes: Mapping[str, Change],
        biases: Mapping[Norm, Tensor],
    ) -> None:
        """
        all_sites, norms
            Of the base, in the order of their numbers.
        changes
            By the linear layer's path.
        biases
            Those that are not the base's. Shape of each: (hidden,), fp32
        """
        self._alive: list[Tensor] = []  # pointers go into them
        self._changes = (structures.Change * len(all_sites))()
        self._biases = (ctypes.c_void_p * len(norms))(*(self._at(biases.get(norm)) for norm in norms))
        for made, sites in zip(self._changes, all_sites, strict=True):
            self._set(backend, made, sites, [changes.get(part.path) for part in sites.parts])
        self.structure = structures.Member(addressof(self._changes), addressof(self._biases))

    def _set(self, backend: Backend, made: structures.Change, sites: Sites, changes: Sequence[Change | None]) -> None:
        given = structures.Sites(matrix=sites.frozen.native_matrix(), count=len(changes))
        factors = []  # that the structure points to until they are laid out
        for number, (site, part, change) in enumerate(zip(given.parts, sites.parts, changes, strict=False)):
            site.d_out = part.columns.stop - part.columns.start
            if change is None:
                continue
            made.inlet = made.inlet or self._at(change.inlet)
            made.gain[number], made.bias[number] = self._at(change.outlet), self._at(change.bias)
            adapter = change.adapter
            if adapter is None or adapter.A is None or adapter.B is None:
                continue
            A, B = (one.float().contiguous() for one in (adapter.A, adapter.B))
            factors += [A, B]
            site.rank, site.scale, site.lora_A, site.lora_B = len(A), adapter.scale, where(A), where(B)
            if adapter.magnitude is not None:
                site.magnitude = self._at(adapter.magnitude.float())
                site.squared_norms = self._at(change.frozen.detach().float().square().sum(1))
        if any(site.rank for site in given.parts):
            self._alive.append(backend.lay_out_change(given, made))

    def _at(self, tensor: Tensor | None) -> int | None:
        if tensor is not None:
            self._alive.append(tensor.contiguous())
        return None if tensor is None else where(self._alive[-1])


class Owners:
    """Whose rows are, as the kernels take it."""

    def __init__(self, changes: Iterable[Changes | None], counts: np.ndarray) -> None:
        """
        changes
            Of the classifier of one text after the other; None: nobody's rows.
        counts
            Rows of each. Shape: (texts,)
        """
        self._changes = list(changes)  # pointers go into them
        places = np.array([0 if one is None else addressof(one.structure) for one in self._changes], np.int64)
        first = np.flatnonzero(np.append(True, places[1:] != places[:-1]))
        stops = np.append(0, np.cumsum(counts))
        self._starts = np.append(stops[first], stops[-1]).astype(np.int64)
        self._of_row = np.repeat(np.arange(len(first), dtype=np.int32), np.diff(self._starts))
        self._members = places[first]
        arrays = (self._starts, self._of_row, self._members)
        self.structure = structures.Owners(*(array.ctypes.data for array in arrays), len(first))


def numbered(modules: Iterable[nn.Module]) -> tuple[list[Sites], list[Norm]]:
    """The linear layers and norms of a base, each of which is told its number."""
    modules = list(modules)
    all_sites = [module for module in modules if isinstance(module, Sites)]
    norms = [module for module in modules if isinstance(module, Norm)]
    for number, sites in enumerate(all_sites):
        sites.number = number
    for number, norm in enumerate(norms):
        norm.number = number
    return all_sites, norms
