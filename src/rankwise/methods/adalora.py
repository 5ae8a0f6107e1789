"""AdaLoRA (Zhang et al. 2023): an update in the form of a singular value decomposition, whose ranks move.

Every step moves them to where they matter, until the last third of the run. PEFT leaves this to the training loop;
without it an AdaLoRA adapter keeps its first rank everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rankwise.config.tree import Adapter, Config
from rankwise.config.values import alpha_of
from rankwise.encoders import Encoder
from rankwise.errors import UserError
from rankwise.methods.method import Entry, Method, bias_of_site, whole
from rankwise.methods.places import Place, places_of, sites_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim.optimizer import StateDict


class AdaLoRA(Method):
    """Ends at two thirds of its rank; a tenth of the run warms up, a third is the final phase."""

    summary = "the same, with ranks that move to where they matter during the run (Zhang et al. 2023)"
    sited = ranked = scaled = True
    biases = ("none", "lora_only", "all")
    fast = False
    ranks_move = True

    def check(self, config: Config) -> None:
        super().check(config)
        if config.head.kind == "low_rank":
            raise UserError(
                "head.kind: low_rank cannot apply to adapter.method: adalora, which would take ranks from the head too"
            )

    def check_ranks(self, adapter: Adapter, rank: int | None, places: Sequence[Place]) -> None:
        if rank is not None and rank < 2:
            raise UserError(
                f"adapter.rank: {rank} cannot apply to adapter.method: adalora, which takes a third of it away: "
                "use 2 or more"
            )

    def entries(self, adapter: Adapter, encoder: Encoder, rank: int) -> Iterator[Entry]:
        for place in places_of(adapter, encoder, rank):
            site = place.site
            yield Entry(f"{site.module}.lora_A", (place.rank, site.d_in), "adapter")
            yield Entry(f"{site.module}.lora_B", (site.d_out, place.rank), "adapter")
            yield Entry(f"{site.module}.lora_E", (place.rank, 1), "adapter")
            yield from bias_of_site(adapter, site)

    def peft_config(self, config: Config, encoder: Encoder, common: Mapping[str, Any], total_steps: int | None) -> Any:
        from peft import AdaLoraConfig

        adapter, rank = config.adapter, int(config.adapter.rank)
        steps = total_steps or config.train.steps or 1000
        return AdaLoraConfig(
            init_r=rank,
            target_r=max(1, round(rank / 1.5)),
            total_step=steps,
            tinit=steps // 10,
            tfinal=steps // 3,
            lora_alpha=whole(alpha_of(adapter.alpha, rank)),
            lora_dropout=adapter.dropout,
            target_modules=[site.module for site in sites_of(adapter, encoder)],
            bias=adapter.bias,
            **common,
        )

    def saved_values(self, model: Any, values: dict[str, Any], initial: Mapping[str, Any]) -> None:
        """PEFT cuts the tensors to the ranks that are left."""
        from peft import get_peft_model_state_dict

        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        values.update({name: state[self.file_key(name)] for name in values if ".lora_" in name})

    def allocation(self, model: Any) -> Allocation:
        return Allocation(model)


class Allocation:
    """The budget of ranks over the layers of an AdaLoRA model (Zhang et al. 2023, sections 3.1 to 3.3)."""

    def __init__(self, model: Any) -> None:
        self._tuner = model.base_model
        self._config = model.peft_config["default"]
        self._step = 0

    @property
    def settled(self) -> bool:
        """Whether the ranks are final: weights kept from before would lack what was cut off later, or the reverse."""
        return bool(self._step >= self._config.total_step - self._config.tfinal)

    def penalty(self) -> Tensor:
        """How far the singular vectors are from orthogonal, weighted for the loss (equation 4). Shape: ()"""
        import torch

        pairs = [(name, value) for name, value in self._named() if "lora_A" in name or "lora_B" in name]
        apart = [_from_orthogonal(value if "lora_A" in name else value.T) for name, value in pairs]
        weight: float = self._config.orth_reg_weight
        return torch.stack(apart).mean() * weight

    def step(self, step: int) -> None:
        """Weigh every rank by its gradient and drop those over the budget of this step.

        step
            The optimizer step just made, from 1; its gradients must still be there.
        """
        self._step = step
        for _, value in self._named():
            if value.grad is not None:
                # What overflowed in fp16 moved no weight; one importance that is no number would stay so for the whole run.
                value.grad.nan_to_num_(0.0, 0.0, 0.0)
        self._tuner.update_and_allocate(step)

    def ranks(self) -> dict[str, int]:
        """Ranks left, by the name of the adapted layer's singular values."""
        return {name: int((value != 0).sum()) for name, value in self._named() if "lora_E" in name}

    def _named(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, value) for name, value in self._tuner.named_parameters() if ".default" in name]

    def state_dict(self) -> StateDict:
        """What a resumed run needs: the importances so far, and which ranks are left."""
        allocator = self._tuner.rankallocator
        kept = {name: dict(getattr(allocator, name)) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")}
        return {"importance": kept, "rank_pattern": self._config.rank_pattern, "step": self._step}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue where `state_dict` was taken."""
        for name, values in state["importance"].items():
            setattr(self._tuner.rankallocator, name, values)
        self._config.rank_pattern = state["rank_pattern"]
        self._step = state["step"]


def _from_orthogonal(rows: Tensor) -> Tensor:
    """Frobenius norm of P Pᵀ − I. Shape: rows (rank, width), result ()"""
    import torch

    distance: Tensor = (rows @ rows.T - torch.eye(len(rows), device=rows.device)).norm()
    return distance


METHOD = AdaLoRA("adalora")
