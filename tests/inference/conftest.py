"""A small base with a head and a tokenizer of its own, PEFT adapters on it, and peft's own logits of texts."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from support import sentences

NAMES = {0: "sport", 1: "business", 2: "science"}


@pytest.fixture(scope="session")
def base(tiny_model, tmp_path_factory):
    """The tiny BERT as a classifier of three named classes."""
    from transformers import AutoTokenizer, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("bases") / "base"
    torch.manual_seed(0)
    labels = {"id2label": NAMES, "label2id": {name: place for place, name in NAMES.items()}}
    BertForSequenceClassification.from_pretrained(tiny_model, num_labels=3, **labels).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def adapters(base, tmp_path_factory):
    """The folder of an adapter whose update is not zero, by its options: made once, to be copied."""
    root, known = tmp_path_factory.mktemp("adapters"), {}

    def made(**options):
        key = repr(sorted(options.items()))
        if key not in known:
            known[key] = anew(root / str(len(known)), **options)
        return known[key]

    def anew(folder, **options):
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForSequenceClassification

        torch.manual_seed(1)
        model = AutoModelForSequenceClassification.from_pretrained(base)
        kind = options.pop("kind", LoraConfig)
        if kind is LoraConfig:
            options = {
                "r": 4,
                "lora_alpha": 8,
                "target_modules": ["query", "value"],
                "init_lora_weights": False,
            } | options
        adapted = get_peft_model(model, kind(**{"task_type": "SEQ_CLS", **options}))
        with torch.no_grad():
            for value in adapted.parameters():
                if value.requires_grad:
                    value.add_(0.3 * torch.randn_like(value))
        adapted.save_pretrained(folder)
        return folder

    return made


@pytest.fixture
def adapt(adapters, tmp_path):
    """Copies the folder of an adapter whose update is not zero."""

    def made(name="adapter", **options):
        shutil.copytree(adapters(**options), tmp_path / name, dirs_exist_ok=True)
        return tmp_path / name

    return made


@pytest.fixture
def rewrite():
    """Changes the keys or tensors of an adapter's file, or its configuration, in a copy of its folder."""

    def made(folder, name, tensors=lambda found: found, **config):
        target = folder.parent / name
        shutil.copytree(folder, target)
        changed = tensors(load_file(folder / "adapter_model.safetensors"))
        save_file({key: value.clone() for key, value in changed.items()}, target / "adapter_model.safetensors")
        path = target / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return target

    return made


@pytest.fixture(scope="session")
def texts():
    return [text for text, _ in sentences(7, seed=9)]


@pytest.fixture
def peft_logits(base, texts):
    """What plain peft says of the texts. Shape: (texts, classes)"""

    def made(folder):
        from peft import PeftModel
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(base), str(folder)).eval()
        batch = AutoTokenizer.from_pretrained(base)(texts, return_tensors="pt", padding=True)
        with torch.no_grad():
            return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()

    return made
