"""Where adapters sit and how large each is: scope words, layers and patterns over an encoder's sites."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.config.tree import SCOPE_WORDS, Adapter
from rankwise.config.values import alpha_of
from rankwise.encoders import Encoder, Site
from rankwise.errors import UserError, nearest


@dataclass(frozen=True)
class Place:
    """A site with the rank and alpha of its adapter."""

    site: Site
    rank: int
    alpha: float


def sites_of(adapter: Adapter, encoder: Encoder) -> tuple[Site, ...]:
    """The sites that carry an adapter: the scope's words within the chosen layers.

    A fused layer (ModernBERT's Wqkv) is taken once, whichever of its words name it.

    Raises: UserError for layers the encoder does not have.
    """
    words = set(SCOPE_WORDS) if adapter.scope == "all" else set(adapter.scope)
    layers = range(encoder.layers) if adapter.layers is None else adapter.layers
    beyond = [layer for layer in layers if layer >= encoder.layers]
    if beyond:
        raise UserError(_beyond("adapter.layers", beyond[0], encoder))
    if not layers:
        raise UserError("adapter.layers is empty: name layers from 0, or leave it out to adapt them all")
    return tuple(s for s in encoder.sites if words & set(s.words) and s.layer in set(layers))


def places_of(adapter: Adapter, encoder: Encoder, rank: int) -> tuple[Place, ...]:
    """Every site with its rank and alpha at a base rank; later patterns override earlier ones.

    Raises: UserError: a pattern matches no adapted site, or names a layer the model lacks.
    """
    sites = sites_of(adapter, encoder)
    if adapter.rank_pattern == "ascending":
        ranks = _ascending(sites, rank)
    else:
        ranks = _patterned("adapter.rank_pattern", adapter.rank_pattern, sites, encoder, [rank] * len(sites))
    alphas = _patterned(
        "adapter.alpha_pattern",
        adapter.alpha_pattern,
        sites,
        encoder,
        [alpha_of(adapter.alpha, r) for r in ranks],
    )
    return tuple(Place(*each) for each in zip(sites, ranks, alphas, strict=True))


def solves_rank(adapter: Adapter, encoder: Encoder) -> bool:
    """Whether the base rank reaches any site: not when rank patterns cover them all."""
    return any(a.rank != b.rank for a, b in zip(*(places_of(adapter, encoder, r) for r in (1, 3)), strict=True))


def _ascending(sites: Sequence[Site], rank: int) -> list[int]:
    """Ranks that grow linearly with the layer and average the given rank; at least 1."""
    layers = sorted({site.layer for site in sites})
    steps = len(layers) + 1
    by_layer = {layer: max(1, (2 * rank * (i + 1) + steps // 2) // steps) for i, layer in enumerate(layers)}
    return [by_layer[site.layer] for site in sites]


def _patterned(key: str, pattern: Any, sites: Sequence[Site], encoder: Encoder, values: list[Any]) -> list[Any]:
    values = list(values)
    for place, value in pattern.items():
        layers, word = _parse(key, place, encoder)
        hits = [
            i
            for i, site in enumerate(sites)
            if (layers is None or site.layer in layers) and (word is None or word in site.words)
        ]
        if not hits:
            raise UserError(f"{key}: '{place}' matches no adapted layer; adapter.scope and adapter.layers leave it out")
        for i in hits:
            values[i] = value
    return values


def _parse(key: str, place: str, encoder: Encoder) -> tuple[range | None, str | None]:
    """The layers and the scope word of a place: `8-11`, `11`, `value`, `11.query`, `8-11.value`."""
    match = re.fullmatch(r"(?:(\d+)(?:-(\d+))?)?(?:(?:^|\.)([a-z_]+))?", place.strip())
    if not match or not place.strip():
        raise UserError(f"{key}: '{place}' is no place: write layers (8-11), a scope word (value) or both (11.query)")
    first, last, word = match.groups()
    if word is not None and word not in SCOPE_WORDS:
        raise UserError(f"{key}: unknown scope word '{word}' in '{place}'{nearest(word, SCOPE_WORDS)}")
    if first is None:
        return None, word
    layers = range(int(first), int(last or first) + 1)
    if not layers:
        raise UserError(f"{key}: the layers '{place}' run backwards")
    if layers[-1] >= encoder.layers:
        raise UserError(_beyond(key, layers[-1], encoder))
    return layers, word


def _beyond(key: str, layer: int, encoder: Encoder) -> str:
    if encoder.family.shares_layers:
        return (
            f"{key} names layer {layer}, but the layers of model.name: {encoder.name} share their weights "
            f"in {encoder.layers} group(s): only 0 to {encoder.layers - 1} can be told apart"
        )
    return f"{key} names layer {layer}, but model.name: {encoder.name} has layers 0 to {encoder.layers - 1}"
