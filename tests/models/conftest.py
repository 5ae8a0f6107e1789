"""Tiny encoders of every supported family, saved as `transformers` saves them."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from support import DEBERTA

TINY: dict[str, dict[str, Any]] = {
    "bert": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "vocab_size": 60,
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "pad_token_id": 1,
    }
}
for _name in ("roberta", "xlm-roberta", "camembert", "mpnet"):
    TINY[_name] = TINY["bert"]
TINY["ernie"] = {**TINY["bert"], "use_task_id": True}
TINY["electra"] = {**TINY["bert"], "embedding_size": 16}
TINY["albert"] = {**TINY["bert"], "embedding_size": 16, "num_hidden_groups": 1}
TINY["distilbert"] = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 48,
    "vocab_size": 60,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
TINY["deberta-v2"] = {
    **TINY["bert"],
    **DEBERTA,
}
TINY["modernbert"] = {
    **TINY["bert"],
    **dict.fromkeys(("eos_token_id", "bos_token_id", "cls_token_id", "sep_token_id"), 2),
}
HAS_DENSE = ("bert", "ernie", "albert", "modernbert")
"""families whose published checkpoints hold the dense layer of the head"""


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Folder by family; `bert-bare` and the like are checkpoints without the head's dense layer."""
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    root = tmp_path_factory.mktemp("families")
    found = {}
    for number, (name, shape) in enumerate(TINY.items()):
        torch.manual_seed(number)
        config = AutoConfig.for_model(name, **copy.deepcopy(shape))
        whole = AutoModelForSequenceClassification.from_config(config)
        # A classification checkpoint for two classes: its projection does not fit and must be replaced.
        (whole if name in HAS_DENSE else whole.base_model).save_pretrained(root / name)
        found[name] = root / name
        if name in HAS_DENSE:
            options = {"add_pooling_layer": False} if name != "modernbert" else {}
            AutoModel.from_config(config, **options).save_pretrained(root / f"{name}-bare")
            found[f"{name}-bare"] = root / f"{name}-bare"
    return found


@pytest.fixture(autouse=True, scope="session")
def _quiet():
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    """Four texts of 6 to 9 tokens. Shape: (texts, tokens)"""
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(9) < torch.tensor([9, 6, 8, 9])[:, None]).long()
    ids = torch.randint(6, 60, (4, 9), generator=generator)
    return {"input_ids": torch.where(mask.bool(), ids, 1), "attention_mask": mask}


@torch.no_grad()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits without dropout. Shape: (texts, classes)"""
    was = model.training
    model.eval()
    result = model(**inputs).logits
    model.train(was)
    return result


def train_a_little(model: Any, inputs: dict[str, torch.Tensor], steps: int = 3) -> dict[str, float]:
    """A few large steps; the largest change of each trained parameter, by name."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    before = {n: p.detach().clone() for n, p in trained.items()}
    optimizer = torch.optim.SGD(trained.values(), lr=0.5)
    targets = torch.arange(len(inputs["input_ids"])) % model.config.num_labels
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(**inputs).logits, targets).backward()
        optimizer.step()
    return {n: (p.detach() - before[n]).abs().max().item() for n, p in trained.items()}
