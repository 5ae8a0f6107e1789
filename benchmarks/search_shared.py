"""What trials share: a process's rows, the token files, frozen features, and one copy of the base's weights in memory.

python benchmarks/search_shared.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rankwise import files
from rankwise.machine import caches
from rankwise.search.sweep import spec
from rankwise.search.sweep.space import Space

FEATURES = 512
"""texts whose frozen features are computed"""
RESULT = Path(__file__).parent / "results" / "search_shared.json"


def main() -> None:
    """Time the parts of setting a trial up, first and again; count the weights' memory in one and in two workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    found = {"workers": {str(count): measured(count) for count in (1, 2)}}
    files.write_json(RESULT, found)
    print(RESULT.read_text(encoding="utf-8"))


def measured(count: int) -> list[dict[str, Any]]:
    """Every worker's figures while all of them hold their model."""
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(count)]
    stamp = f"{count} workers, {time.time()}"  # features that no earlier call has left behind
    workers = [context.Process(target=work, args=(there, stamp)) for _, there in pairs]
    for worker in workers:
        worker.start()
    timings = [here.recv() for here, _ in pairs]
    for here, _ in pairs:
        here.send("all are ready")
    maps = [here.recv() for here, _ in pairs]
    for worker in workers:
        worker.join()
    return [{**timing, **memory} for timing, memory in zip(timings, maps, strict=True)]


def work(there: Connection, stamp: str) -> None:
    """Set two trials up, then tell how large the frozen weights are that the classifier computes with, how much
    of their file is in memory, and how much of that is this one's.
    """
    from rankwise import config as configuration
    from rankwise import planning
    from rankwise.data.tokens import tokenise
    from rankwise.models import assemble, tokenizer_of
    from rankwise.models.classifier import classifier_of
    from rankwise.search.sweep.trial import load_data
    from rankwise.training import frozen_features, probe

    search = spec.load("scope-sweep")
    config = configuration.from_dict(Space.of(search).tree({}))
    times: list[dict[str, float]] = []
    for _ in range(2):
        marks = [time.perf_counter()]
        roles = load_data(config.data, ["train", "validation", "test"])
        marks.append(time.perf_counter())
        planned = planning.plan(config, len(roles.label_names))
        tokenizer = tokenizer_of(config.model)
        tokens = tokenise(roles.train.texts, tokenizer, 128, caches.cache("tokens"), positions=planned.positions)
        marks.append(time.perf_counter())
        model = assemble.build(planned.config, len(roles.label_names), roles.label_names)
        classifier = classifier_of(model, planned, planned.config, pad_token_id=tokenizer.pad_token_id)
        marks.append(time.perf_counter())
        (weight, _), batch = probe.projection_of(model), config.train.eval_batch_size
        compute = partial(probe.features, classifier, weight, batch_size=batch)
        frozen_features.shared(compute, tokens[:FEATURES], stamp)
        marks.append(time.perf_counter())
        names = ("rows_s", "tokens_s", "model_s", "features_s")
        times.append({name: round(b - a, 4) for name, a, b in zip(names, marks, marks[1:], strict=False)})
    frozen = [*classifier.buffers(), *(value for value in classifier.parameters() if not value.requires_grad)]
    total = sum(float(value.detach().double().sum()) for value in frozen)  # touches every weight
    there.send({"first": times[0], "again": times[1], "checksum": round(total, 3)})
    there.recv()
    there.send(memory_of(frozen))
    there.recv() if there.poll(2) else None


def memory_of(frozen: list[Any]) -> dict[str, float]:
    """Mebibytes of frozen weights, of those that lie in mapped safetensors files, and what this process shares (Linux).

    share
        of the mapped files: every resident page over the number of processes that have it
    private
        of the whole process: pages that it has written, of which a copy of the weights would be a part
    """
    places, resident, share, private = [], 0, 0, 0
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        first = line.split(" ")[0]
        if "-" in first and ":" not in first:
            inside = line.endswith(".safetensors")
            if inside:
                start, end = (int(part, 16) for part in first.split("-"))
                places.append(range(start, end))
        elif line.startswith("Private_Dirty:"):
            private += int(line.split()[1])
        elif inside and line.startswith("Rss:"):
            resident += int(line.split()[1])
        elif inside and line.startswith("Pss:"):
            share += int(line.split()[1])
    mapped = [value for value in frozen if any(value.data_ptr() in place for place in places)]
    mebibytes = {
        "frozen_mb": sum(value.nbytes for value in frozen) / 2**20,
        "frozen_mapped_mb": sum(value.nbytes for value in mapped) / 2**20,
        "weights_resident_mb": resident / 1024,
        "weights_share_mb": share / 1024,
        "process_private_mb": private / 1024,
    }
    return {name: round(value, 1) for name, value in mebibytes.items()}


if __name__ == "__main__":
    main()
