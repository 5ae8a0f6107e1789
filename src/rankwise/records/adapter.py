"""rankwise.json: what an adapter's folder says beside PEFT's files, and all that serving it needs to know."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec

from rankwise.records.record import Record, Tree, Upgrade, read
from rankwise.records.result import Calibration

FILE = "rankwise.json"


class Base(Record, kw_only=True):
    """The frozen encoder under an adapter.

    name
        None where nothing says it: PEFT's own configuration does.
    seed
        Of weights that are random; it makes them again.
    """

    name: str | None = None
    revision: str | None = None
    precision: str = "auto"
    random_weights: bool = False
    seed: int = 0


class Texts(Record, kw_only=True):
    """How texts become tokens, and where they and their labels stand in a file."""

    columns: list[str] = msgspec.field(default_factory=lambda: ["text"])
    label: str | list[str] | None = None
    label_separator: str | None = None
    pair: bool = False
    preprocess: list[str] = []
    max_length: int | None = None
    multi_label: bool = False


def _typed(tree: Tree) -> None:
    """Version 1 held the whole training configuration, and serving read it: a key renamed there ended the service."""
    config = tree.get("config") or {}
    model, data = config.get("model") or {}, config.get("data") or {}
    text = data.get("text") or "text"
    known = {
        "base": _some(model, "name", "revision", "precision", "random_weights")
        | _some(config.get("train") or {}, "seed"),
        "texts": _some(data, "label", "label_separator", "pair", "preprocess", "max_length", "multi_label")
        | {"columns": [text] if isinstance(text, str) else text},
        "method": (config.get("adapter") or {}).get("method", "lora"),
        "engine": config.get("engine", "auto"),
        "compile": (config.get("train") or {}).get("compile", "auto"),
    }
    tree |= {key: value for key, value in known.items() if key not in tree}


def _some(tree: Tree, *names: str) -> Tree:
    return {name: tree[name] for name in names if name in tree}


class AdapterRecord(Record, kw_only=True):
    """The contents of rankwise.json.

    labels
        The classes, in the order of the logits; None where nothing says them.
    config
        The configuration it was trained with, for people: nothing that serves reads it.
    """

    OMITTED: ClassVar[tuple[str, ...]] = ("calibration", "labels")
    UPGRADES: ClassVar[tuple[Upgrade, ...]] = (_typed,)

    version: int = 2
    labels: list[str] | None = None
    base: Base = msgspec.field(default_factory=Base)
    texts: Texts = msgspec.field(default_factory=Texts)
    method: str = "lora"
    engine: str = "auto"
    compile: str = "auto"
    calibration: Calibration | None = None
    config: dict[str, Any] = {}

    @classmethod
    def of(cls, labels: list[str], config: Tree) -> AdapterRecord:
        """The record of an adapter trained with a configuration (`config.to_dict`)."""
        tree: Tree = {"config": config}
        _typed(tree)
        return cls(
            labels=labels,
            base=Base(**tree["base"]),
            texts=Texts(**tree["texts"]),
            method=tree["method"],
            engine=tree["engine"],
            compile=tree["compile"],
            config=config,
        )


def read_adapter(folder: Path) -> AdapterRecord:
    """The record of an adapter's folder; an empty one where another program saved it.

    Raises: UserError when it is damaged.
    """
    path = folder / FILE
    return read(path, AdapterRecord) if path.is_file() else AdapterRecord()
