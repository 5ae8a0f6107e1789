"""Variants of `rankwise bench` on a GPU that is none, each its turns in this process: python bench_on_fake_gpu.py ROWS MODEL

Prints one JSON object: by variant what it answered, and what the host waited for in its measured steps.
"""

import io
import json
import sys

import torch
from accelerate import PartialState

import fake_gpu
from rankwise.bench import command, predicting, training, turns

PartialState(cpu=True).device = fake_gpu.DEVICE  # where accelerate would put a peer's model
ROUNDS, STEPS, WARMUP = 2, 3, 1
TURNS = {
    "train": ("engine", "products-torch"),
    "predict": ("engine", "papers", "fp16-sorted", "merged-sorted"),
}


def of(task: str, variant: str, rows: str, model: str, batch_size: int = 4) -> dict:
    setting = command.Setting(
        task=task, data=rows, text="text", label="label", model=model, tokenizer=model, random_weights=False,
        scope=["query", "value"], layers=None, rank=4, dora=False, dropout=0.1, batch_size=batch_size, max_length=32,
        steps=STEPS, warmup=WARMUP, rounds=ROUNDS, threads=None, seed=0,
    )  # fmt: skip
    said = []
    turns.answer = lambda **values: said.append(values)
    sys.stdin = io.StringIO("go\n" * ROUNDS + "end\n")
    before = torch.fake.synchronized
    with fake_gpu.FakeGpu() as gpu:
        module = training if task == "train" else predicting

        class Watched(turns.Turns):
            def step_done(self):
                if self._steps == 0:
                    gpu.waits.clear()  # weights are fetched, and tables made, once
                super().step_done()

        module.run(variant, setting, Watched(setting))
    return {"said": said, "waits": gpu.waits, "synchronized": torch.fake.synchronized - before}


if __name__ == "__main__":
    found = {
        f"{task} {variant}": of(task, variant, *sys.argv[1:]) for task, names in TURNS.items() for variant in names
    }
    found["predict alone"] = of("predict", "engine", *sys.argv[1:], batch_size=1)
    print(json.dumps(found))
