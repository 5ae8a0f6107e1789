"""VeRA (Kopiczko et al. 2024): one frozen random pair for all sites, two trained vectors a site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rankwise.config.tree import Adapter, Config
from rankwise.encoders import Encoder
from rankwise.methods.method import Entry, Method
from rankwise.methods.places import sites_of

_SHARED = ("vera_A", "vera_B")


class VeRA(Method):
    """The shared matrices are saved, though they never train: they could not be drawn again elsewhere."""

    summary = "two vectors a layer over random matrices that all share (Kopiczko et al. 2024)"
    sited = ranked = True
    fast = False

    def entries(self, adapter: Adapter, encoder: Encoder, rank: int) -> Iterator[Entry]:
        sites = sites_of(adapter, encoder)
        yield Entry("vera_A", (rank, max(site.d_in for site in sites)), None)
        yield Entry("vera_B", (max(site.d_out for site in sites), rank), None)
        for site in sites:
            yield Entry(f"{site.module}.vera_lambda_b", (site.d_out,), "adapter")
            yield Entry(f"{site.module}.vera_lambda_d", (rank,), "adapter")

    def file_key(self, name: str) -> str:
        return f"base_model.{name}" if name in _SHARED else super().file_key(name)

    def entry_name(self, key: str) -> str:
        name = key.removeprefix("base_model.")
        return name if name.startswith(_SHARED) else super().entry_name(key)

    def peft_config(self, config: Config, encoder: Encoder, common: Mapping[str, Any], total_steps: int | None) -> Any:
        from peft import VeraConfig

        return VeraConfig(
            r=config.adapter.rank,
            target_modules=[site.module for site in sites_of(config.adapter, encoder)],
            vera_dropout=config.adapter.dropout,
            projection_prng_key=config.train.seed,
            save_projection=True,
            **common,
        )


METHOD = VeRA("vera")
