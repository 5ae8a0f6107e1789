"""LoRA (Hu et al. 2021) with its options: DoRA, rsLoRA, ranks by place, and the starts of A and B."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rankwise.config.tree import SCOPE_WORDS, Adapter, Config
from rankwise.config.values import alpha_of
from rankwise.encoders import Encoder
from rankwise.errors import UserError
from rankwise.methods.method import Entry, Group, Method, bias_of_site, whole
from rankwise.methods.places import Place, places_of, sites_of

_MUTATING = ("pissa", "olora")
"""initialisations that change the frozen weight, so that the saved update is of twice the rank"""


class LoRA(Method):
    """A low-rank update of every site."""

    summary = "a low-rank update of every layer of `adapter.scope`"
    sited = ranked = scaled = True
    biases = ("none", "lora_only", "all")

    def check_options(self, config: Config) -> None:
        adapter = config.adapter
        if adapter.dora and adapter.init in _MUTATING:
            raise UserError(
                f"adapter.dora: true cannot apply with adapter.init: {adapter.init}, which changes the frozen weight "
                "the magnitudes are taken from"
            )

    def check_encoder(self, adapter: Adapter, encoder: Encoder) -> None:
        super().check_encoder(adapter, encoder)
        if adapter.init != "eva":
            return
        if adapter.rank_pattern:
            raise UserError("adapter.rank_pattern cannot apply with adapter.init: eva, whose layers share directions")
        words = SCOPE_WORDS if adapter.scope == "all" else adapter.scope
        relative = [word for word in encoder.family.relative_words if word in words]
        if relative:
            raise UserError(
                f"adapter.init: eva cannot apply to {' and '.join(encoder.family.relative_words)} of model.name: "
                f"{encoder.name}, which project relative positions beside the text"
            )

    def check_ranks(self, adapter: Adapter, rank: int | None, places: Sequence[Place]) -> None:
        """Refuse a rank above the directions that an initialisation has."""
        for place in places if adapter.init in (*_MUTATING, "eva") else ():
            most = min(place.site.d_in, place.site.d_out)
            if place.rank > most:
                raise UserError(
                    f"adapter.rank: {place.rank} cannot apply with adapter.init: {adapter.init}: {place.site.module} "
                    f"has {most} directions"
                )

    def entries(self, adapter: Adapter, encoder: Encoder, rank: int) -> Iterator[Entry]:
        for place in places_of(adapter, encoder, rank):
            yield from _entries_at(adapter, place)

    def notes(self, adapter: Adapter, rank: int | None) -> list[str]:
        if not self.converts(adapter):
            return []
        return [
            f"adapter.init: {adapter.init} changes the frozen weight, so the update is saved as plain LoRA of "
            f"twice the rank, {2 * (rank or 1)}"
        ]

    def peft_config(self, config: Config, encoder: Encoder, common: Mapping[str, Any], total_steps: int | None) -> Any:
        from peft import EvaConfig, LoraConfig

        adapter = config.adapter
        with warnings.catch_warnings():
            # PEFT warns that it cannot convert PiSSA with rsLoRA and patterns: `saved_values` can, and does.
            warnings.filterwarnings("ignore", "Using Rank-Stabilized LoRA")
            return LoraConfig(
                **self.lora_options(config, encoder),
                init_lora_weights=True if adapter.init == "default" else adapter.init,
                eva_config=EvaConfig(rho=1.0) if adapter.init == "eva" else None,  # 1: every layer keeps its rank
                **common,
            )

    def lora_options(self, config: Config, encoder: Encoder) -> dict[str, Any]:
        """What differs from the base rank and alpha is a pattern by full module path."""
        adapter, rank = config.adapter, int(config.adapter.rank)
        alpha, places = whole(alpha_of(adapter.alpha, rank)), places_of(adapter, encoder, rank)
        return {
            "r": rank,
            "lora_alpha": alpha,
            # Full paths: a shorter one may match more than it says (`output.dense` does).
            "target_modules": [site.module for site in sites_of(adapter, encoder)],
            "rank_pattern": {p.site.module: p.rank for p in places if p.rank != rank},
            "alpha_pattern": {p.site.module: whole(p.alpha) for p in places if p.alpha != alpha},
            "lora_dropout": adapter.dropout,
            "bias": adapter.bias,
            "use_rslora": adapter.rslora,
            "use_dora": adapter.dora,
        }

    def draw(self, config: Config, places: Sequence[Place], weight: Callable[[str], Any]) -> dict[str, Any] | None:
        """A by Kaiming's or a normal distribution, B of zeros, and a magnitude that changes nothing."""
        adapter = config.adapter
        if adapter.init not in ("default", "gaussian"):
            return None
        import torch

        drawn = {}
        for place in places:
            site, rank = place.site, place.rank
            deviation = 1 / rank if adapter.init == "gaussian" else None
            A, B = pair(site.d_in, site.d_out, rank, deviation)
            drawn[f"{site.module}.lora_A.weight"], drawn[f"{site.module}.lora_B.weight"] = A, B
            if adapter.dora:
                drawn[f"{site.module}.lora_magnitude_vector"] = torch.linalg.norm(weight(site.module), dim=1)
        return drawn

    def initialise(
        self, model: Any, adapter: Adapter, batches: Callable[[], Iterable[Mapping[str, Any]]] | None
    ) -> None:
        """EVA (Paischer et al. 2024): A from the principal components of each layer's inputs, ranks left as planned."""
        if adapter.init != "eva":
            return
        if batches is None:
            raise RuntimeError("adapter.init: eva needs batches to take the activations of")
        from peft import initialize_lora_eva_weights

        model.eval()
        initialize_lora_eva_weights(model, [dict(batch) for batch in batches()], show_progress_bar=False)
        model.train()

    def converts(self, adapter: Adapter) -> bool:
        return adapter.init in _MUTATING

    def mutated(self, adapter: Adapter, places: Sequence[Place]) -> set[str]:
        if not self.converts(adapter):
            return set()
        return {f"{place.site.module}.lora_{side}.weight" for place in places for side in "AB"}

    def saved_values(self, model: Any, values: dict[str, Any], initial: Mapping[str, Any]) -> None:
        """Turn updates of a changed frozen weight into updates of the published one.

        The base became W - s B0 A0, so W - s B0 A0 + s B A = W + s [B, -B0] [A; A0]: rank doubles, the scale s stays.
        """
        import torch

        for name, start in initial.items():
            now = values[name]
            start = start.to(now.device)
            values[name] = torch.cat([now, start], 0) if ".lora_A." in name else torch.cat([now, -start], 1)

    def saved_peft_config(self, peft_config: Any, adapter: Adapter) -> None:
        if self.converts(adapter):
            factor = 2**0.5 if adapter.rslora else 2  # keeps alpha/rank, or alpha/sqrt(rank), as it was
            peft_config.r *= 2
            peft_config.lora_alpha *= factor
            peft_config.rank_pattern = {place: 2 * rank for place, rank in peft_config.rank_pattern.items()}
            peft_config.alpha_pattern = {place: factor * alpha for place, alpha in peft_config.alpha_pattern.items()}
        peft_config.init_lora_weights, peft_config.eva_config = True, None


def pair(d_in: int, d_out: int, rank: int, deviation: float | None = None) -> tuple[Any, Any]:
    """A and B of an update that changes nothing yet, drawn as PEFT draws them.

    deviation
        Of a normal distribution; None: Kaiming's uniform one (He et al. 2015), as of any linear layer.

    Shape: (rank, d_in), (d_out, rank)
    """
    from torch import nn

    # PEFT makes linear layers, which draw their own weights, and then draws A anew.
    A = nn.Linear(d_in, rank, bias=False).weight.detach()
    B = nn.Linear(rank, d_out, bias=False).weight.detach()
    if deviation is None:
        nn.init.kaiming_uniform_(A, a=math.sqrt(5))
    else:
        nn.init.normal_(A, std=deviation)
    return A, nn.init.zeros_(B)


def _entries_at(adapter: Adapter, place: Place) -> Iterator[Entry]:
    site, rank = place.site, place.rank
    mutating = adapter.init in _MUTATING
    for factor in (1, 2) if mutating else (1,):
        saved = factor == 2 or not mutating
        group: Group | None = "adapter" if factor == 1 else None
        yield Entry(f"{site.module}.lora_A.weight", (factor * rank, site.d_in), group, saved)
        yield Entry(f"{site.module}.lora_B.weight", (site.d_out, factor * rank), group, saved)
    if adapter.dora:
        yield Entry(f"{site.module}.lora_magnitude_vector", (site.d_out,), "dora")
    yield from bias_of_site(adapter, site)


METHOD = LoRA("lora")
