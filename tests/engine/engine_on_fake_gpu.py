"""The engine on a GPU that is none: python engine_on_fake_gpu.py ROWS MODEL OUT

Prints one JSON object: of every family how far a step there is from one on the processor, and what the host waited for in it; of a
run its status, and what it waited for in every step.
"""

import json
import sys

from accelerate import PartialState
from rich.console import Console

import fake_gpu
import rankwise
from engine.models import CONFIGS, FastClassifier, adapted, engine, modules, result_of, texts, tiny, worst
from rankwise.training import loop

PartialState(cpu=True).device = fake_gpu.DEVICE
WORDS = ("query", "key", "value", "attention_output", "ffn_in", "ffn_out")


def of_family(family: str) -> dict:
    peft = adapted(tiny(family), modules(family, *WORDS), use_dora=True, bias="all")
    expected = engine(peft, texts(), backend="torch")
    classifier = FastClassifier.from_peft(peft, precision="fp32").to(fake_gpu.DEVICE).train()
    classifier(classifier.collate(texts()))  # tables are made once
    with fake_gpu.FakeGpu() as gpu:
        logits = classifier(classifier.collate(texts()))
        logits.sum().backward()
        waits = list(gpu.waits)
        found = result_of(peft, classifier(classifier.collate(texts())))
    return {"off": worst(expected, found)[0], "device": str(logits.device), "waits": waits}


def of_run(rows: str, model: str, out: str) -> dict:
    step, waits = loop.Loop._train_step, []

    def watched(one: loop.Loop) -> None:
        gpu.waits.clear()
        step(one)
        waits.append(list(gpu.waits))

    loop.Loop._train_step = watched
    tree = {
        "model": {"name": model},
        "data": {"train": rows, "max_length": 32, "validation_size": 8},
        "train": {"steps": 4, "eval_every": 4, "batch_size": 8},
        "engine": "fast",
    }
    with fake_gpu.FakeGpu() as gpu:
        run = rankwise.train(tree, out=out, console=Console(quiet=True))
    return {"status": run.record.status, "waits": waits, "gpu": run.result["environment"]["gpu"]}


if __name__ == "__main__":
    with fake_gpu.FakeGpu():
        families = {family: of_family(family) for family in CONFIGS}
    print(json.dumps({"families": families, "run": of_run(*sys.argv[1:])}))
