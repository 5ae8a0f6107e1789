"""IA3 (Liu et al. 2022): factors of keys, values and activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rankwise.config.tree import Adapter, Config
from rankwise.encoders import Encoder, Site
from rankwise.methods.method import Entry, Method
from rankwise.methods.places import sites_of


class IA3(Method):
    """One factor a feature: of a site's output, of the feed-forward layers' of its input."""

    summary = "factors of keys, values and activations (Liu et al. 2022)"
    sited = True
    fast = False

    def entries(self, adapter: Adapter, encoder: Encoder, rank: int) -> Iterator[Entry]:
        for site in sites_of(adapter, encoder):
            shape = (1, site.d_in) if _scales_input(site) else (site.d_out, 1)
            yield Entry(f"{site.module}.ia3_l", shape, "adapter")

    def peft_config(self, config: Config, encoder: Encoder, common: Mapping[str, Any], total_steps: int | None) -> Any:
        from peft import IA3Config

        sites = sites_of(config.adapter, encoder)
        inputs = [site.module for site in sites if _scales_input(site)]
        return IA3Config(target_modules=[site.module for site in sites], feedforward_modules=inputs, **common)


def _scales_input(site: Site) -> bool:
    return "ffn_out" in site.words


METHOD = IA3("ia3")
