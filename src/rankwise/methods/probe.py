"""A linear probe: the projection solved at once on frozen features (`training.probe`)."""

from __future__ import annotations

from rankwise.config.tree import Config
from rankwise.errors import UserError
from rankwise.methods.method import Method


class Probe(Method):
    """The head's projection, fitted by logistic regression; no steps, no dropout, nothing drawn."""

    summary = "nothing; the projection is solved at once on frozen features"
    adds = False
    head = "output"
    solved_at_once = True

    def check(self, config: Config) -> None:
        super().check(config)
        reasons = {
            "head.probe_first: true": config.head.probe_first,
            "data.augment": config.data.augment,
            "train.early_stopping": config.train.early_stopping,
            "train.schedule: plateau": config.train.schedule == "plateau",
            "train.prefix_cache_mb": config.train.prefix_cache_mb,
        }
        for key, given in reasons.items():
            if given:
                raise UserError(
                    f"{key} cannot apply to adapter.method: probe, which is solved at once on frozen features"
                )


METHOD = Probe("probe")
