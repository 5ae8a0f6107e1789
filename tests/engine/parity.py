"""Tiny models of every family, and the one assertion: the engine equals transformers + peft."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from rankwise.encoders import FAMILIES
from rankwise.engine import FastClassifier

CLASSES = 3
LENGTHS = (5, 17, 9, 9, 1, 20)
# Largest relative error allowed of a whole tensor, |ours - theirs| / |theirs|, by precision. bf16 has no fixed
# bound: it is held to autocast's own error.
TOLERANCE = {"fp32": 1e-4}

_BERT = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.25,
}
_DISTILBERT = {
    "vocab_size": 120,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.25,
}
_FAIRSEQ = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": {**_BERT, **_FAIRSEQ, "type_vocab_size": 1},
    "xlm-roberta": {**_BERT, **_FAIRSEQ, "type_vocab_size": 1},
    "camembert": {**_BERT, **_FAIRSEQ, "type_vocab_size": 1},
    "electra": {**_BERT, "embedding_size": 16},
    "ernie": {**_BERT, "use_task_id": True},
    "distilbert": _DISTILBERT,
    "mpnet": {**_BERT, **_FAIRSEQ},
    "albert": {**_BERT, "embedding_size": 16, "num_hidden_groups": 1, "num_hidden_layers": 4},
    "deberta-v2": {
        **_BERT,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_buckets": 8,
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
    "modernbert": {
        **_BERT,
        **dict.fromkeys(("pad_token_id", "eos_token_id", "bos_token_id", "cls_token_id", "sep_token_id"), 0),
        "num_hidden_layers": 4,
        "local_attention": 8,
        "classifier_pooling": "mean",
        "norm_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "classifier_bias": True,
    },
}
_NO_DROPOUT = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "seq_classif_dropout": 0.0,
    "classifier_dropout": 0.0,
    "classifier_dropout_prob": 0.0,
}


def tiny(model_type: str, *, dropout: bool = False, seed: int = 0, **more: Any) -> nn.Module:
    """A random classification model; biases and norms are random too, so that none can be forgotten."""
    torch.manual_seed(seed)
    values = {**CONFIGS[model_type], **({} if dropout else _NO_DROPOUT), **more}
    config = AutoConfig.for_model(model_type, num_labels=CLASSES, **values)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    for name, value in model.named_parameters():
        if value.ndim == 1:
            nn.init.normal_(value, float("norm" in name.lower() and name.endswith("weight")), 0.2)
    return model


def modules(model_type: str, *words: str) -> list[str]:
    """Module paths of scope words, ends that PEFT matches."""
    return [FAMILIES[model_type].sites[word] for word in words]


def adapted(model: nn.Module, targets: list[str], **options: Any) -> Any:
    """The model in PEFT, with adapters that do something."""
    options = {"r": 4, "lora_alpha": 6, "lora_dropout": 0.0, "task_type": "SEQ_CLS", **options}
    peft = get_peft_model(model, LoraConfig(target_modules=targets, **options))
    torch.manual_seed(1)
    for name, value in peft.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(value, 0.0, 0.3)
        if "magnitude" in name:
            value.data *= 1.0 + 0.2 * torch.rand_like(value)
    return peft


def texts(lengths: tuple[int, ...] = LENGTHS, vocabulary: int = 120) -> list[np.ndarray]:
    """Random token ids."""
    random = np.random.default_rng(0)
    return [random.integers(5, vocabulary, length) for length in lengths]


def padded(rows: list[np.ndarray], pad_id: int) -> dict[str, Tensor]:
    """What a Hugging Face collator makes of them."""
    ids = torch.full((len(rows), max(map(len, rows))), pad_id)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.from_numpy(np.asarray(row, dtype=np.int64))
        mask[number, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


@dataclass
class Result:
    """Logits, loss and the gradient of everything that trains, by the PEFT model's names."""

    logits: Tensor
    loss: Tensor
    gradients: dict[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name."""
        return {"logits": self.logits, "loss": self.loss, **self.gradients}


def result_of(model: nn.Module, logits: Tensor) -> Result:
    """Loss and gradients of a model's parameters after these logits."""
    labels = torch.arange(len(logits)) % logits.shape[1]
    loss = nn.functional.cross_entropy(logits.float(), labels)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    gradients = torch.autograd.grad(loss, list(trained.values()))
    return Result(logits.detach().float(), loss.detach(), dict(zip(trained, gradients, strict=True)))


def reference(peft: nn.Module, rows: list[np.ndarray], *, autocast: bool = False) -> Result:
    """transformers + peft on the padded batch."""
    peft.train()
    pad_id = peft.base_model.model.config.pad_token_id if hasattr(peft, "peft_config") else peft.config.pad_token_id
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = peft(**padded(rows, pad_id or 0)).logits
    return result_of(peft, logits)


def engine(peft: nn.Module, rows: list[np.ndarray], precision: str = "fp32", **options: Any) -> Result:
    """The fast engine on the same model, which it leaves as it was."""
    peft = copy.deepcopy(peft)
    classifier = FastClassifier.from_peft(peft, precision=precision, **options).train()
    return result_of(peft, classifier(classifier.collate(rows)))


def error(ours: Tensor, theirs: Tensor) -> float:
    """|ours - theirs| / |theirs|, over whole tensors."""
    ours, theirs = ours.detach(), theirs.detach()
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-12))


def distance(ours: Result, theirs: Result) -> float:
    """Mean of the logits' relative error and of all gradients' as one vector, which no small tensor dominates."""
    flat = [torch.cat([value.float().flatten() for value in one.gradients.values()]) for one in (ours, theirs)]
    return (error(ours.logits, theirs.logits) + error(*flat)) / 2


def assert_parity(peft: nn.Module, rows: list[np.ndarray] | None = None) -> None:
    """Logits, loss and every gradient equal transformers' and peft's, in fp32."""
    rows = rows or texts()
    theirs, ours = reference(peft, rows).tensors(), engine(peft, rows).tensors()
    scale = max(float(value.norm()) for name, value in theirs.items() if name not in ("logits", "loss"))
    for name, expected in theirs.items():
        if float(expected.norm()) < 1e-6 * scale:  # a key's bias: its gradient is rounding, as softmax ignores it
            assert float(ours[name].norm()) < 1e-5 * scale, name
            continue
        assert error(ours[name], expected) < TOLERANCE["fp32"], f"{name}: {error(ours[name], expected):.2e}"


families = pytest.mark.parametrize("model_type", CONFIGS)
