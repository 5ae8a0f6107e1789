"""Tiny models of every family, what `transformers` and `peft` make of them, and what the engine does; on any device, without pytest."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from rankwise.encoders import FAMILIES
from rankwise.engine import FastClassifier
from support import DEBERTA

CLASSES = 3
LENGTHS = (5, 17, 9, 9, 1, 20)

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
        **DEBERTA,
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


def result_of(model: nn.Module, logits: Tensor, *, scale: float = 1.0) -> Result:
    """Loss and gradients of a model's parameters after these logits, on the processor.

    scale
        Of the loss, before it goes backward: in fp16 small gradients are lost without one.
    """
    labels = torch.arange(len(logits), device=logits.device) % logits.shape[1]
    loss = nn.functional.cross_entropy(logits.float(), labels)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    gradients = [value.float().cpu() / scale for value in torch.autograd.grad(loss * scale, list(trained.values()))]
    return Result(logits.detach().float().cpu(), loss.detach().cpu(), dict(zip(trained, gradients, strict=True)))


def reference(
    peft: nn.Module,
    rows: list[np.ndarray],
    *,
    autocast: torch.dtype | bool = False,
    device: torch.device | str = "cpu",
    scale: float = 1.0,
) -> Result:
    """transformers + peft on the padded batch.

    autocast
        Its dtype, True being bf16; False for fp32.
    """
    peft.train().to(device)
    pad_id = peft.base_model.model.config.pad_token_id if hasattr(peft, "peft_config") else peft.config.pad_token_id
    dtype = autocast if isinstance(autocast, torch.dtype) else torch.bfloat16
    batch = {name: value.to(device) for name, value in padded(rows, pad_id or 0).items()}
    with torch.autocast(torch.device(device).type, dtype, enabled=bool(autocast)):
        logits = peft(**batch).logits
    return result_of(peft, logits, scale=scale)


def engine(
    peft: nn.Module,
    rows: list[np.ndarray],
    precision: str = "fp32",
    *,
    device: torch.device | str = "cpu",
    scale: float = 1.0,
    **options: Any,
) -> Result:
    """The fast engine on the same model, which it leaves as it was."""
    peft = copy.deepcopy(peft).cpu()
    classifier = FastClassifier.from_peft(peft, precision=precision, **options).to(device).train()
    return result_of(peft, classifier(classifier.collate(rows)), scale=scale)


def error(ours: Tensor, theirs: Tensor) -> float:
    """|ours - theirs| / |theirs|, over whole tensors."""
    ours, theirs = ours.detach(), theirs.detach()
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-12))


def distance(ours: Result, theirs: Result) -> float:
    """Mean of the logits' relative error and of all gradients' as one vector, which no small tensor dominates."""
    flat = [torch.cat([value.float().flatten() for value in one.gradients.values()]) for one in (ours, theirs)]
    return (error(ours.logits, theirs.logits) + error(*flat)) / 2


def worst(theirs: Result, ours: Result) -> tuple[float, str]:
    """The largest relative error of a whole tensor, and which one's; infinite for one that should be rounding and is more."""
    expected, found = theirs.tensors(), ours.tensors()
    norms = [float(value.norm()) for name, value in expected.items() if name not in ("logits", "loss")]
    largest = (0.0, "")
    for name, value in expected.items():
        if float(value.norm()) < 1e-6 * max(norms):  # a key's bias: its gradient is rounding, as softmax ignores it
            off = 0.0 if float(found[name].norm()) < 1e-5 * max(norms) else float("inf")
        else:
            off = error(found[name], value)
        if not off <= largest[0]:  # nor is what is no number
            largest = (off, name)
            if math.isnan(off):
                break
    return largest
