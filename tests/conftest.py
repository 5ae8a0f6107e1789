"""Small things every folder of tests uses: a real encoder of a few thousand weights, and labelled sentences."""

import datetime
import functools
import gc
import itertools
import os
import random
import sys
from pathlib import Path

import hypothesis
import pytest

import environment  # noqa: F401 (before numpy and torch)
from bases import adapter_of, adapters_of, answers_here, bases, shallow  # noqa: F401 (fixtures)
from rankwise.machine import caches
from support import COMMON, TOPICS, sentences, write_csv


def pytest_addoption(parser):
    parser.addoption("--exhaustive", action="store_true", help="run every case of the sampled tests")


def pytest_configure(config):
    """Of what is drawn at random a run draws a quarter, others every time; all with --exhaustive."""
    for name, examples in (("sampled", 50), ("exhaustive", 200)):
        anywhere = [hypothesis.HealthCheck.function_scoped_fixture]
        hypothesis.settings.register_profile(name, max_examples=examples, deadline=None, suppress_health_check=anywhere)
    hypothesis.settings.load_profile("exhaustive" if config.getoption("--exhaustive") else "sampled")


def pytest_report_header(config):
    if config.getoption("--exhaustive"):
        return "every case of the sampled tests"
    return f"sampled tests run the cases drawn for {_day()}, all of them with --exhaustive"


def _day() -> str:
    """What the sample is drawn by: workers that run the tests together must draw the same."""
    return os.environ.get("RANKWISE_TEST_DAY") or datetime.date.today().isoformat()


def pytest_collection_modifyitems(config, items):
    """Of a family marked `sampled` keep as many as it says, others on another day; begin with what is slow.

    A family is the cases of one test, or the tests that say `of` the same.
    """
    if not config.getoption("--exhaustive"):
        families: dict[str, list] = {}
        for item in items:
            if mark := item.get_closest_marker("sampled"):
                families.setdefault(mark.kwargs.get("of") or item.nodeid.partition("[")[0], []).append(item)
        dropped = set()
        for name, group in families.items():
            (count,) = group[0].get_closest_marker("sampled").args
            kept = random.Random(f"{_day()} {name}").sample(group, min(count, len(group)))
            dropped |= set(group) - set(kept)
        config.hook.pytest_deselected(items=[item for item in items if item in dropped])
        items[:] = [item for item in items if item not in dropped]
    items[:] = _slow_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _slow_first(items, workers):
    """The items so ordered that every worker begins with its part of the slow ones.

    `--dist worksteal` cuts the list into a share a worker. With all slow tests in the first share one worker is at them to
    the end, and the others at what they leave.
    """
    slow = [item for item in items if item.get_closest_marker("slow")]
    others = iter([item for item in items if not item.get_closest_marker("slow")])
    ordered = []
    for worker, own in enumerate(_dealt(slow, workers)):
        share = (len(items) - len(ordered)) // (workers - worker)
        ordered += [*own, *itertools.islice(others, max(0, share - len(own)))]
    return [*ordered, *others]


def _dealt(items, workers):
    """Equal shares of items, those of a file in one where they can be: what is made once a file may be a cluster."""
    most = -(-len(items) // workers)
    files = [list(group) for _, group in itertools.groupby(items, lambda item: item.path)]
    parts = [part[start : start + most] for part in files for start in range(0, len(part), most)]
    shares = [[] for _ in range(workers)]
    for part in sorted(parts, key=len, reverse=True):
        min(shares, key=len).extend(part)
    return shares


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


_imported = 0
"""modules there were when objects were last set apart"""


def pytest_runtest_logfinish():
    """Set what a test has imported apart: every run collects what it leaves, and need not walk through half a million objects."""
    global _imported
    if len(sys.modules) > _imported + 50:
        gc.collect()
        gc.freeze()
        _imported = len(sys.modules)
        _keep_translations()


def _keep_translations():
    """Let torch's exporter keep what it knows of ONNX, which it gathers anew, in a second, for every graph."""
    registry = getattr(sys.modules.get("torch.onnx._internal.exporter._registration"), "ONNXRegistry", None)
    gather = getattr(getattr(registry, "from_torchlib", None), "__func__", None)
    if gather is not None and not hasattr(gather, "cache_info"):
        registry.from_torchlib = classmethod(functools.cache(gather))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Token files of the tests go to a folder of their own; packages that were fetched and kernels that were compiled, named by
    what they are made of, stay for the next run."""
    before = os.environ.get("RANKWISE_CACHE")
    own = tmp_path_factory.mktemp("cache")
    for kind in ("packaged", "native", "sanitized", "compared"):
        (own / kind).symlink_to(caches.cache(kind))
    os.environ["RANKWISE_CACHE"] = str(own)
    yield
    if before is None:
        del os.environ["RANKWISE_CACHE"]
    else:
        os.environ["RANKWISE_CACHE"] = before


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """The folder of a BERT with two layers of width 32 and a tokenizer of its own, saved by transformers."""
    import peft  # noqa: F401
    import torch

    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"]), "torch was imported before it could be told"
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *COMMON, *(word for group in TOPICS.values() for word in group)]
    inner = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def news(tmp_path_factory) -> dict[str, Path]:
    """CSV files for the roles train, validation and test."""
    folder = tmp_path_factory.mktemp("news")
    sizes = {"train": 240, "validation": 60, "test": 60}
    return {
        role: write_csv(folder / f"{role}.csv", sentences(size, seed))
        for seed, (role, size) in enumerate(sizes.items())
    }


@pytest.fixture
def measured_soon(monkeypatch):
    """A long clock is for what fits it: timing the steps of a tiny encoder takes a second of it, and not twenty."""
    from rankwise.search.clock.clock import Clock

    monkeypatch.setattr(Clock, "measuring_s", 1.0)


@pytest.fixture
def config(tiny_model, news) -> dict:
    """A configuration that trains in about a second."""
    return {
        "budget": {"max_trainable": 20_000},
        "model": {"name": str(tiny_model)},
        "adapter": {"scope": ["query", "value"], "rank": 4, "dropout": 0.1},
        "data": {"train": str(news["train"]), "validation": str(news["validation"]), "max_length": 32},
        "train": {"steps": 24, "batch_size": 8, "learning_rate": 5e-3, "eval_every": 6, "seed": 3},
        "engine": "reference",
    }
