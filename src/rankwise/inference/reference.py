"""A saved classifier as transformers and peft make it: for what the engine does not know, and to compare with."""

from __future__ import annotations

import re
import warnings
from importlib.metadata import version
from typing import Any

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig, get_peft_model, set_peft_model_state_dict

from rankwise.errors import UserError, reason_of
from rankwise.inference.adapter import PROMPT, AdapterFiles
from rankwise.inference.saved import SavedClassifier
from rankwise.models.base import base_model, quiet
from rankwise.models.layout import CONFIG

_NEVER_SAVED = re.compile(r"^prompt_encoder\.|\.ranknum\.")
"""prompts by the name of their module, and AdaLoRA's counts of its own ranks"""


def base_of(saved: SavedClassifier) -> Any:
    """The base alone, in fp32; a base of random weights is made again from its seed. The host's generator stays as it was."""
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(saved.seed)
        model = base_model(saved.model, saved.encoder, saved.label_names, saved.multi_label, folder=saved.base)
        if saved.embedding_rows != saved.encoder.dims.vocabulary:  # the tokenizer had grown in training
            model.resize_token_embeddings(saved.embedding_rows, mean_resizing=False)
    return model


def peft_model(saved: SavedClassifier) -> Any:
    """The base with the adapter on it, for prediction, in fp32.

    Raises: UserError when peft cannot make the adapter, or puts only a part of the file into it.
    """
    adapter, base = saved.adapter, base_of(saved)
    if adapter.kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise UserError(
            f"{adapter.folder / CONFIG}: peft {version('peft')} knows no adapter of the kind {adapter.kind}"
        )
    tensors = {adapter.file_key(name): value for name, value in adapter.tensors().items()}
    try:
        with quiet(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # of what is checked below
            given = {key: value for key, value in adapter.config.items() if key != "runtime_config"}
            config = PeftConfig.from_peft_type(**given)
            config.inference_mode = True
            model: Any = get_peft_model(base, config)
            report = set_peft_model_state_dict(model, tensors)
    except Exception as error:  # of as many kinds as there are methods and packages that they need
        raise UserError(f"peft cannot load {adapter.folder}: {type(error).__name__}: {reason_of(error)}") from error
    _check(report, model, adapter)
    return model.eval()


def _check(report: Any, model: Any, adapter: AdapterFiles) -> None:
    """PEFT's own report: nothing in the file is left over, nothing of the adapter is left as it was made."""
    left_over = [key for key in report.unexpected_keys if key != PROMPT]
    if left_over:
        raise UserError(f"{adapter.path} holds '{left_over[0]}', which peft finds no place for")
    own = {name for name, _ in model.named_parameters() if ".default" in name and not _NEVER_SAVED.search(name)}
    missing = (name.replace(".default", "") for name in own.intersection(report.missing_keys))
    shared = tuple(
        f".{name}" for name in adapter.keys if adapter.is_shared(name)
    )  # by names of modules that hold them, too
    lacking = sorted(name for name in missing if not name.endswith(shared))
    if lacking:
        raise UserError(f"{adapter.path} lacks '{lacking[0]}', which peft expects there")
