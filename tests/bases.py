"""Trained adapters on tiny encoders of every family, with a tokenizer each, as a run leaves them."""

from __future__ import annotations

import copy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from support import DEBERTA

LABELS = ["art", "business", "sport"]
_BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 40,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
SHAPES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "mpnet": {**_BERT, "pad_token_id": 1},
    "electra": {**_BERT, "embedding_size": 16},
    "albert": {**_BERT, "embedding_size": 16, "num_hidden_groups": 1},
    "distilbert": {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 48,
        "vocab_size": 40,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
        "initializer_range": 0.2,
    },
    "deberta-v2": {**_BERT, **DEBERTA},
    "modernbert": {**_BERT, **dict.fromkeys(("eos_token_id", "bos_token_id", "cls_token_id", "sep_token_id"), 2)},
}

_LAYERS = {"distilbert": "n_layers"}


@pytest.fixture(scope="session")
def bases(tmp_path_factory, tiny_model) -> dict[str, Path]:
    """Folder by family."""
    return _saved(SHAPES, tmp_path_factory.mktemp("bases"), tiny_model)


@pytest.fixture(scope="session")
def shallow(tmp_path_factory, tiny_model) -> dict[str, Path]:
    """Folder by family, of one layer where all layers are alike: tracing each takes a second, and no two differ."""
    one = {name: {**shape, _LAYERS.get(name, "num_hidden_layers"): 1} for name, shape in SHAPES.items()}
    return _saved({**one, "modernbert": SHAPES["modernbert"]}, tmp_path_factory.mktemp("shallow"), tiny_model)


def _saved(shapes, root: Path, tokenizer: Path) -> dict[str, Path]:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    for number, (family, shape) in enumerate(shapes.items()):
        torch.manual_seed(number)
        config = AutoConfig.for_model(family, **copy.deepcopy(shape))
        AutoModelForSequenceClassification.from_config(config).save_pretrained(root / family)
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(root / family)
    return {family: root / family for family in shapes}


@pytest.fixture(scope="session")
def adapters_of(tmp_path_factory):
    """An adapter on a base whose every trained number has moved, by overrides of the configuration: made once, to be copied."""
    root, known = tmp_path_factory.mktemp("adapters"), {}

    def made(base: Path, overrides: tuple[str, ...], labels: list[str]) -> Path:
        key = (base, overrides, tuple(labels))
        if key not in known:
            known[key] = make(root / str(len(known)), base, overrides, labels)
        return known[key]

    def make(folder: Path, base: Path, overrides: tuple[str, ...], labels: list[str]) -> Path:
        import torch
        from transformers import AutoTokenizer

        from rankwise import config as configuration
        from rankwise.models import adapter_file, assemble

        tree = {
            "model": {"name": str(base)},
            "adapter": {"rank": 2, "scope": ["query", "ffn_out"]},
            "data": {"max_length": 24},
        }
        model = assemble.build(configuration.load(tree, ["budget.max_trainable=null", *overrides]), len(labels), labels)
        generator = torch.Generator().manual_seed(len(labels))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        adapter_file.save(model.assembly, folder, tokenizer=AutoTokenizer.from_pretrained(base), label_names=labels)
        return folder

    return made


@pytest.fixture
def adapter_of(adapters_of, tmp_path):
    """Copies an adapter on a base whose every trained number has moved, by overrides of the configuration."""

    def copied(base: Path, *overrides: str, labels=LABELS, name="adapter") -> Path:
        return shutil.copytree(adapters_of(base, overrides, labels), tmp_path / name, dirs_exist_ok=True)

    return copied


@pytest.fixture
def answers_here(monkeypatch):
    """An artefact's own program answers in this process, where it is not about a fresh one, which imports for five seconds."""
    from rankwise.export import alone

    def answers(folder, texts, *, load, unwanted):
        scope, known = {"folder": str(folder), "sys": sys}, list(sys.path)
        try:
            exec(load, scope)
        finally:
            sys.path[:] = known
            for name in ("predict", "cleaning"):
                sys.modules.pop(name, None)
        logits = scope["logits"]
        return np.concatenate([np.asarray(logits([text])) for text in texts]), np.asarray(logits(list(texts)))

    monkeypatch.setattr(alone, "answers", answers)
