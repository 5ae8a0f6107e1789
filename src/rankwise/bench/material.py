"""What all variants of a measurement are made from: the same rows, the same model, the same adapter."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rankwise import config as configuration
from rankwise.bench.command import Setting
from rankwise.config import Model
from rankwise.encoders import FAMILIES, encoder_of
from rankwise.errors import UserError
from rankwise.models import sources
from rankwise.models.assembly import Assembly
from rankwise.models.fresh import assembled


@dataclass(frozen=True)
class Material:
    """Rows in the order in which every variant without grouping takes them."""

    texts: list[np.ndarray]
    """token ids"""
    labels: Tensor
    """Shape: (rows,)"""
    tokenizer: Any

    @property
    def tokens(self) -> int:
        """Tokens of all rows, without padding."""
        return sum(len(text) for text in self.texts)


def prepare(setting: Setting) -> Material:
    """Read, shuffle and tokenise as many rows as will be used.

    Raises: UserError when the file or a column is missing, or there are too few rows.
    """
    from rankwise.data.tokens import encode
    from rankwise.models import tokenizer

    warnings.filterwarnings("ignore")
    table = _read(setting)
    if len(table) < setting.rows:
        raise UserError(
            f"{setting.data} has {len(table)} rows, this measurement needs {setting.rows}: lower --rounds or --steps"
        )
    chosen = np.random.default_rng(setting.seed).permutation(len(table))[: setting.rows]
    _, labels = np.unique(table[setting.label].to_pylist(), return_inverse=True)
    texts = table[setting.text].take(chosen).to_pylist()
    del table
    reader = tokenizer.read(sources.folder_of(Model(name=setting.tokenizer)))
    ids = encode(texts, reader, setting.max_length)
    return Material([np.array(row) for row in ids], torch.from_numpy(labels[chosen]).long(), reader)


def _read(setting: Setting) -> Any:
    """The file as an Arrow table."""
    import pyarrow.csv
    import pyarrow.parquet

    readers = {".csv": pyarrow.csv.read_csv, ".parquet": pyarrow.parquet.read_table}
    suffix = Path(setting.data).suffix
    if suffix not in readers:
        raise UserError(f"--data {setting.data}: expected a .csv or .parquet file")
    table = readers[suffix](setting.data)
    for column in (setting.text, setting.label):
        if column not in table.column_names:
            raise UserError(f"{setting.data} has no column '{column}': name it with --text or --label")
    return table


def assembly(setting: Setting, classes: int) -> Assembly:
    """What the engine trains of a setting, as a run puts it together; the dense layer of a head as PEFT trains it.

    Raises: UserError for an unknown architecture or scope word.
    """
    encoder = encoder_of(Model(name=setting.model, random_weights=setting.random_weights))
    _check(setting, encoder.model_type, encoder.layers)
    inside = encoder.family.projection != "classifier"
    tree = {
        "budget": {"max_trainable": None},
        "model": {"name": setting.model, "random_weights": setting.random_weights},
        "adapter": {
            "scope": setting.scope,
            "layers": setting.layers,
            "rank": setting.rank,
            "alpha": 2 * setting.rank,
            "dropout": setting.dropout,
            "dora": setting.dora,
        },
        "head": {"kind": "full" if inside else "output", "pooling": "first"},
        "train": {"seed": setting.seed},
    }
    return assembled(configuration.from_dict(tree), classes, [str(label) for label in range(classes)])


def _check(setting: Setting, model_type: str, layers: int) -> None:
    """Raises: UserError for an unknown architecture, layer or scope word."""
    beyond = [layer for layer in setting.layers or () if layer >= layers]
    if beyond:
        raise UserError(f"--layers names layer {beyond[0]}, this encoder has 0 to {layers - 1}")
    if model_type not in FAMILIES:
        raise UserError(f"bench knows {', '.join(FAMILIES)}, not {model_type}")
    sites = FAMILIES[model_type].sites
    unknown = [word for word in setting.scope if word not in sites]
    if unknown:
        raise UserError(f"--scope: no layer '{unknown[0]}'; there are {', '.join(sites)}")


def peft_model(setting: Setting, classes: int) -> nn.Module:
    """The adapted model all variants start from.

    Raises: UserError for an unknown architecture or scope word.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForSequenceClassification, logging

    logging.set_verbosity_error()
    folder = sources.folder_of(Model(name=setting.model))
    config = AutoConfig.from_pretrained(folder, num_labels=classes)
    _check(setting, config.model_type, getattr(config, "num_hidden_layers", 0))
    sites = FAMILIES[config.model_type].sites
    torch.manual_seed(setting.seed)
    if setting.random_weights:
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        sources.check_weights(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes)
    adapter = LoraConfig(
        r=setting.rank,
        lora_alpha=2 * setting.rank,
        lora_dropout=setting.dropout,
        use_dora=setting.dora,
        target_modules=[sites[word] for word in setting.scope],
        layers_to_transform=setting.layers,
        task_type="SEQ_CLS",
    )
    adapted: nn.Module = get_peft_model(model, adapter)
    return adapted


def trainable(model: nn.Module) -> int:
    """Parameters that train."""
    return sum(value.numel() for value in model.parameters() if value.requires_grad)
