"""What a method is: everything the rest asks of a way to adapt an encoder, with the answers of one that adds nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rankwise.config.tree import Adapter, Bias, Config, HeadKind
from rankwise.encoders import Encoder, Site, Tensor
from rankwise.errors import UserError
from rankwise.methods.places import Place

Group = Literal["adapter", "dora", "bias", "head", "encoder"]
NO_SITES = "dummy-target-modules"
"""PEFT's own word for an adapter without adapted layers, of which `modules_to_save` is all"""


@dataclass(frozen=True)
class Entry:
    """A tensor of the plan: trained as part of a group (None: frozen), saved in the adapter file or not.

    The name is the file's key below PEFT's prefix.
    """

    name: str
    shape: tuple[int, ...]
    group: Group | None
    saved: bool = True

    @property
    def size(self) -> int:
        """Number of elements."""
        return Tensor(self.name, self.shape).size


class Method:
    """A way to adapt an encoder. A method's file overrides what sets it apart; nothing else asks for its name.

    No torch and no peft is imported before a model is built.
    """

    summary: str
    """what trains beside the head, for the documentation"""
    adds = True
    """whether anything but the head trains"""
    sited = False
    """whether it sits on the sites of `adapter.scope`"""
    ranked = False
    """whether a rank sizes it"""
    scaled = False
    """whether its update is multiplied by alpha over the rank"""
    biases: tuple[Bias, ...] = ("none",)
    """what `adapter.bias` may be"""
    head: HeadKind | None = None
    """the head it brings, which leaves no choice of `head.kind`; None: any"""
    fast = True
    """whether all that trains is adapters on linear layers, biases and the head, which the engine can train"""
    trains_encoder = False
    solved_at_once = False
    """whether it is solved on frozen features instead of trained by steps"""
    ranks_move = False
    """whether ranks change while it trains, so that the file holds other shapes than the plan"""

    def __init__(self, name: str) -> None:
        self.name = name

    # --- before anything is loaded --------------------------------------------------------------------

    def check(self, config: Config) -> None:
        """Refuse keys that contradict the method. Raises: UserError, naming both keys."""
        self.check_options(config)
        if config.adapter.scope == [] and self.sited:
            raise UserError("adapter.scope is empty: name layers, or use adapter.method: head to train the head alone")
        if not self.adds and config.train.objective == "contrastive":
            raise UserError(
                f"train.objective: contrastive cannot apply to adapter.method: {self.name}: nothing below the head trains"
            )
        if self.head is not None and config.head.kind != "full":
            raise UserError(f"head.kind: {config.head.kind} cannot apply to adapter.method: {self.name}")

    def check_options(self, config: Config) -> None:
        """Refuse LoRA's own options. Raises: UserError, naming both keys."""
        adapter = config.adapter
        for key in ("dora", "rslora"):
            if getattr(adapter, key):
                raise UserError(
                    f"adapter.{key}: true cannot apply to adapter.method: {self.name}; it is an option of lora"
                )
        if adapter.rank_pattern or adapter.alpha_pattern:
            raise UserError(f"adapter.rank_pattern and alpha_pattern cannot apply to adapter.method: {self.name}")
        if config.train.loraplus_ratio is not None:
            raise UserError(f"train.loraplus_ratio cannot apply to adapter.method: {self.name}; only lora has A and B")
        if adapter.init != "default":
            raise UserError(f"adapter.init: {adapter.init} cannot apply to adapter.method: {self.name}")

    def check_encoder(self, adapter: Adapter, encoder: Encoder) -> None:
        """Refuse what cannot apply to this encoder. Raises: UserError, naming both keys."""
        if adapter.bias not in self.biases:
            raise UserError(f"adapter.bias: {adapter.bias} cannot apply to adapter.method: {self.name}")
        if not self.sited and adapter.layers is not None:
            raise UserError(f"adapter.layers cannot apply to adapter.method: {self.name}, which has no sites")
        if adapter.bias != "none":
            refuse_without_biases(encoder, f"adapter.bias: {adapter.bias}")

    def check_ranks(self, adapter: Adapter, rank: int | None, places: Sequence[Place]) -> None:
        """Refuse ranks that it cannot work with. Raises: UserError."""

    def keys(self) -> dict[str, bool]:
        """The keys of `adapter` that not every method reads, and whether this one does."""
        return {
            "scope": self.sited,
            "rank": self.ranked,
            "alpha": self.scaled,
            "dropout": self.ranked,
            "virtual_tokens": False,
        }

    # --- counts ---------------------------------------------------------------------------------------

    def entries(self, adapter: Adapter, encoder: Encoder, rank: int) -> Iterator[Entry]:
        """The tensors that it adds, at a base rank."""
        yield from ()

    def trains_biases(self, adapter: Adapter) -> bool:
        """Whether every bias of the model trains, the head's own among them."""
        return adapter.bias == "all"

    def virtual_tokens(self, adapter: Adapter) -> int:
        """Tokens that it puts in front of a text, of the encoder's positions."""
        return 0

    def notes(self, adapter: Adapter, rank: int | None) -> list[str]:
        """What a user might not expect of it."""
        return []

    def file_key(self, name: str) -> str:
        """An entry's key in the adapter file, in PEFT's spelling."""
        return f"base_model.model.{name}"

    def entry_name(self, key: str) -> str:
        """The entry's name of a tensor of the live PEFT model; the adapter's name is still in it."""
        return key.removeprefix("base_model.model.")

    # --- a model --------------------------------------------------------------------------------------

    def peft_config(self, config: Config, encoder: Encoder, common: Mapping[str, Any], total_steps: int | None) -> Any:
        """PEFT's configuration.

        config
            with numbers for rank and alpha, as a plan resolves it
        common
            the arguments that all of PEFT's configurations take
        total_steps
            optimizer steps of the run
        """
        from peft import LoraConfig

        return LoraConfig(**self.lora_options(config, encoder), **common)

    def lora_options(self, config: Config, encoder: Encoder) -> dict[str, Any]:
        """What PEFT's LoRA is configured with, in PEFT's words, where the method is one of its forms."""
        return {"target_modules": NO_SITES, "bias": "none"}

    def draw(self, config: Config, places: Sequence[Place], weight: Callable[[str], Any]) -> dict[str, Any] | None:
        """The tensors of the adapter by entry name as PEFT starts them, drawn in PEFT's order from torch's generator; None
        where PEFT itself must.

        weight
            A site's frozen weight by its module's path. Shape: (d_out, d_in)
        """
        return {}

    def initialise(
        self, model: Any, adapter: Adapter, batches: Callable[[], Iterable[Mapping[str, Any]]] | None
    ) -> None:
        """Give the adapter of a PEFT model the start that PEFT does not give it; `batches` as `assemble.build` has them."""

    def mutated(self, adapter: Adapter, places: Sequence[Place]) -> set[str]:
        """Names of the tensors whose start must be kept, since the initialisation took it out of the frozen weights."""
        return set()

    def converts(self, adapter: Adapter) -> bool:
        """Whether the file holds the update in another form than the live model."""
        return False

    def saved_values(self, model: Any, values: dict[str, Any], initial: Mapping[str, Any]) -> None:
        """Make the tensors of the file of the live ones, in place.

        values
            by entry name
        initial
            of the mutated ones, as they were initialised
        """

    def saved_peft_config(self, peft_config: Any, adapter: Adapter) -> None:
        """Make PEFT's configuration of a live adapter that of its file, in place."""

    def allocation(self, model: Any) -> Any:
        """What moves the ranks of a PEFT model while it trains (`adalora.Allocation`), if anything does."""
        return None


def refuse_without_biases(encoder: Encoder, key: str) -> None:
    """Raises: UserError when the encoder's layers have no biases that could train."""
    if not encoder.has_biases:
        raise UserError(f"{key} cannot apply to model.name: {encoder.name}, whose layers have no biases")


def bias_of_site(adapter: Adapter, site: Site) -> Iterator[Entry]:
    """The bias that trains with a site's adapter (`adapter.bias: lora_only`)."""
    if adapter.bias == "lora_only" and site.bias:
        yield Entry(f"{site.module}.base_layer.bias", (site.d_out,), "bias")


def whole(value: float) -> float | int:
    """An int where the number is whole, as PEFT writes it."""
    return int(value) if float(value).is_integer() else value
