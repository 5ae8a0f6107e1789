"""Optimizers from torch, over groups of parameters that differ in rate and decay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import torch
from torch.nn import Parameter
from torch.optim.optimizer import StateDict

from rankwise.config import Train
from rankwise.errors import UserError
from rankwise.machine.compiler import eager

Named = tuple[str, Parameter]


class Group(TypedDict):
    """Parameters of one rate and decay, as torch's optimizers take them, with their role (`role_of`)."""

    params: list[Parameter]
    lr: float
    weight_decay: float
    role: str


def role_of(name: str) -> str:
    """`A`, `B`, `head` or `other`: what decides a parameter's learning rate (PEFT's parameter names)."""
    # First the head, whose dense layer may carry LoRA too. PEFT keeps its trained copy under `modules_to_save`; full
    # fine-tuning and the fast engine have it in the open.
    if "modules_to_save" in name or any(
        f".{part}." in f".{name}" for part in ("classifier", "score", "pre_classifier")
    ):
        return "head"
    if "lora_A" in name or "lora_embedding_A" in name:
        return "A"
    if "lora_B" in name or "lora_embedding_B" in name:
        return "B"
    return "other"


def decays(name: str, parameter: Parameter) -> bool:
    """Whether weight decay applies: to matrices, never to biases, norms, and what scales: DoRA's magnitudes, IA3's
    factors (which start at one) and AdaLoRA's singular values."""
    return parameter.ndim > 1 and not any(part in name for part in ("magnitude", "ia3_l", "lora_E"))


def groups(parameters: Iterable[Named], train: Train) -> list[Group]:
    """Parameter groups, one for each pair of role and decay that occurs, in a fixed order.

    LoRA+ (Hayou et al. 2024): the rate of B is `loraplus_ratio` times the rate of A.
    """
    rates = {
        "A": train.learning_rate,
        "B": train.learning_rate * (train.loraplus_ratio or 1.0),
        "head": train.head_learning_rate or train.learning_rate,
        "other": train.learning_rate,
    }
    found: dict[tuple[str, bool], list[Parameter]] = {}
    for name, parameter in parameters:
        found.setdefault((role_of(name), decays(name, parameter)), []).append(parameter)
    return [
        Group(params=members, lr=rates[role], weight_decay=train.weight_decay if decay else 0.0, role=role)
        for (role, decay), members in sorted(found.items(), key=lambda item: item[0])
    ]


def check_optimizer(train: Train) -> None:
    """Refuse an optimizer this torch does not have.

    Raises: UserError for Muon before torch 2.9.
    """
    if train.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        raise UserError(f"train.optimizer: muon needs torch 2.9 or later, this is {torch.__version__}")


def optimizer(parameters: Iterable[Named], train: Train) -> torch.optim.Optimizer:
    """torch's optimizer of the configured name over the groups of these parameters.

    Raises: UserError when Muon is asked for and this torch has none.
    """
    split: list[Any] = list(groups(parameters, train))  # torch takes mappings of any keys
    # One call for all parameters: the loop over them costs a small model some hundredths of its step. On a GPU it also looks there
    # whether a scaled gradient is finite, which the host would have to wait for.
    match train.optimizer:
        case "adamw":
            return eager(torch.optim.AdamW)(split, betas=train.betas, eps=train.epsilon, fused=True)
        case "adam":
            return eager(torch.optim.Adam)(split, betas=train.betas, eps=train.epsilon, fused=True)
        case "sgd":
            fused = True if all(p.is_cuda for group in split for p in group["params"]) else None
            return eager(torch.optim.SGD)(split, momentum=train.momentum or 0.0, fused=fused)
        case "rmsprop":
            return eager(torch.optim.RMSprop)(split, eps=train.epsilon, momentum=train.momentum or 0.0)
        case "adagrad":
            return eager(torch.optim.Adagrad)(split, eps=train.epsilon)
        case "muon":
            return MuonWithAdamW(split, train)


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for matrices, AdamW for the vectors Muon is not defined on (Jordan et al. 2024).

    One optimizer to the outside: its groups are those of both halves, so a schedule moves both.
    """

    def __init__(self, split: Sequence[Group], train: Train) -> None:
        check_optimizer(train)
        matrices, vectors = _only(split, matrices=True), _only(split, matrices=False)
        halves: list[torch.optim.Optimizer] = []
        if matrices:
            # Rates given for Adam carry over when the update's size is matched to Adam's (Liu et al. 2025).
            halves.append(
                torch.optim.Muon(
                    matrices,
                    momentum=0.95 if train.momentum is None else train.momentum,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if vectors:
            halves.append(eager(torch.optim.AdamW)(vectors, betas=train.betas, eps=train.epsilon))
        self._halves = halves
        super().__init__([group for half in halves for group in half.param_groups], {})
        # The base class copied nothing: both halves and this object hold the same group dicts.
        self.param_groups = [group for half in halves for group in half.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step both halves."""
        for half in self._halves:
            half.step()

    def state_dict(self) -> StateDict:
        """The states of both halves."""
        return {"halves": [half.state_dict() for half in self._halves], "state": {}, "param_groups": []}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore both halves."""
        for half, state in zip(self._halves, state_dict["halves"], strict=True):
            half.load_state_dict(state)
        self.param_groups = [group for half in self._halves for group in half.param_groups]


def _only(split: Sequence[Group], *, matrices: bool) -> list[Any]:
    """The groups with their matrices alone, or all but those; what is empty then is left out."""

    def kept(p: Parameter) -> bool:
        # One column or row is a vector: IA3's factors and AdaLoRA's singular values are kept so.
        return (p.ndim == 2 and min(p.shape) > 1) == matrices

    return [{**group, "params": members} for group in split if (members := list(filter(kept, group["params"])))]
