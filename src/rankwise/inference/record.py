"""What `rankwise.json` beside an adapter's weights says that matters to whoever serves it.

Read leniently: keys of training come, go and are renamed, and an adapter in service outlives them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from rankwise import files
from rankwise.errors import UserError
from rankwise.models.layout import RECORD


class _Model(msgspec.Struct):
    name: str | None = None
    revision: str | None = None
    precision: str = "auto"
    random_weights: bool = False


class _Data(msgspec.Struct):
    text: str | list[str] | None = "text"
    label: str | list[str] | None = None
    label_separator: str | None = None
    pair: bool = False
    max_length: int | None = None
    preprocess: list[str] = []
    multi_label: bool = False


class _Train(msgspec.Struct):
    seed: int = 0
    compile: str = "auto"


class Trained(msgspec.Struct):
    """The keys of the training's configuration that predicting follows."""

    model: _Model = msgspec.field(default_factory=_Model)
    data: _Data = msgspec.field(default_factory=_Data)
    train: _Train = msgspec.field(default_factory=_Train)
    engine: str = "auto"


class Calibration(msgspec.Struct):
    """A temperature fitted on validation rows (`rankwise calibrate`)."""

    temperature: float


class Record(msgspec.Struct):
    """The record; all of it may be absent, as it is beside an adapter of another program."""

    labels: list[str] | None = None
    config: Trained = msgspec.field(default_factory=Trained)
    calibration: Calibration | None = None


def read(folder: Path) -> Record:
    """The record in an adapter's folder; an empty one where there is none.

    Raises: UserError when it is damaged, or a key that predicting follows has a value of another type.
    """
    path = folder / RECORD
    if not path.is_file():
        return Record()
    content: Any = files.read_json(path)
    try:
        return msgspec.convert(content, Record)
    except msgspec.ValidationError as error:
        raise UserError(f"{path} cannot be followed: {error}") from error
