"""What an adapter's folder says of itself, read without peft or torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from rankwise import config as configuration
from rankwise import files
from rankwise.config import Config, Model
from rankwise.errors import UserError
from rankwise.models.sources import check_safetensors, ensure_config
from rankwise.planning import encoder_of

WEIGHTS = "adapter_model.safetensors"
DETAILS = "rankwise.json"


@dataclass(frozen=True)
class Details:
    """What an adapter's folder says beside its weights."""

    label_names: list[str]
    config: Config
    max_length: int | None


def details(folder: Path) -> Details:
    """The label names and the configuration of an adapter folder, ours or any of PEFT's.

    Raises:
        UserError: the folder holds no adapter, or one of an unknown base.
    """
    if not (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds no adapter_config.json, expected the folder of a PEFT adapter")
    if (folder / DETAILS).is_file():
        content = files.read_json(folder / DETAILS)
        config = configuration.from_dict(content["config"])
        return Details(list(content["labels"]), config, config.data.max_length)
    return _foreign(folder)


def _foreign(folder: Path) -> Details:
    """What can be told of an adapter that another program saved: its base, and as many labels as its head has."""
    content = files.read_json(folder / "adapter_config.json")
    name = content.get("base_model_name_or_path")
    if not name:
        raise UserError(f"{folder / 'adapter_config.json'} names no base_model_name_or_path, so its base is not known")
    model = Model(name=name, revision=content.get("revision"))
    ensure_config(model)
    projection = encoder_of(model).family.projection
    check_adapter(folder)
    with safe_open(folder / WEIGHTS, "numpy") as file:
        heads = [key for key in file.keys() if key.endswith(f"{projection}.weight")]  # noqa: SIM118 (not a dict)
        if not heads:
            raise UserError(
                f"{folder / WEIGHTS} holds no '{projection}': its head was not saved, so it cannot classify"
            )
        count = file.get_slice(heads[0]).get_shape()[0]
    config = configuration.from_dict({"model": {"name": model.name, "revision": model.revision}})
    return Details([str(label) for label in range(count)], config, None)


def check_adapter(folder: Path) -> None:
    """Refuse an adapter folder whose weights are absent, pickled or cut short."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        found = "adapter_model.bin, a pickle, which can run code when opened" if pickled else "none"
        raise UserError(
            f"{folder} should hold its weights as {WEIGHTS}, it has {found}: save the adapter again as safetensors"
        )
    check_safetensors(path)
