"""A predictor in somebody else's process: threads, forks, pickles, and the host's own settings as they were."""

import multiprocessing
import pickle
import random
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import rankwise
from rankwise.errors import UserError
from rankwise.inference import saved
from rankwise.inference.predictor import predictor_of

ENGINES = pytest.mark.parametrize("engine", ["auto", "reference"])


@ENGINES
def test_threads_share_a_predictor(adapt, base, texts, engine):
    folder = adapt()
    (folder / "tokenizer.json").write_bytes(_with_truncation(base))
    (folder / "tokenizer_config.json").write_bytes((base / "tokenizer_config.json").read_bytes())
    predictor = rankwise.load(folder, engine=engine)
    rows = texts * 20
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: predictor.logits(rows), range(32)))
    for answer in answers:
        np.testing.assert_allclose(answer, answers[0], atol=1e-5)


def _with_truncation(base):
    """A tokenizer's file that asks for truncation and padding, as all-MiniLM's and roberta-base's do."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding()
    return tokenizer.to_str().encode()


def test_an_estimator_loads_once_for_threads_that_ask_at_once(tiny_model, news, monkeypatch):
    from rankwise import BudgetedTextClassifier
    from rankwise.inference import predictor

    options = {"engine": "reference", "adapter.rank": 2}
    fitted = BudgetedTextClassifier(
        model=str(tiny_model), steps=2, max_trainable=None, validation_size=None, options=options
    )
    rows = ["the goal", "the bank", "a theory", "the match"] * 4
    fitted.fit(rows, [0, 1, 2, 0] * 4)
    loads, load = [], predictor.load
    monkeypatch.setattr(predictor, "load", lambda *words, **options: loads.append(1) or load(*words, **options))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: fitted.predict_proba(rows), range(8)))
    assert len(loads) == 1
    assert all(np.allclose(answer, answers[0]) for answer in answers)


def _answer(queue, predictor, texts):
    queue.put((predictor.logits(texts), torch.get_num_threads()))


@pytest.mark.parametrize("engine", ["auto", "reference", "several"])
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_process_answers(adapt, texts, engine):
    predictor = (
        rankwise.load_many({"adapter": adapt()}) if engine == "several" else rankwise.load(adapt(), engine=engine)
    )
    rows, before = texts * 20, torch.get_num_threads()
    torch.set_num_threads(2)  # a pool of threads that does not survive the fork
    try:
        expected = predictor.logits(rows)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_answer, args=(queue, predictor, rows), daemon=True)
        child.start()
        answer, threads = queue.get(timeout=60)
        child.join(timeout=60)
    finally:
        torch.set_num_threads(before)
    if engine == "several":
        answer, expected = answer["adapter"], expected["adapter"]
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    assert threads == 2  # as the host had it


def test_a_pickle_loads_it_again_from_anywhere(adapt, texts, tmp_path, monkeypatch):
    folder = adapt()
    monkeypatch.chdir(tmp_path)
    predictor = rankwise.load(folder.name, precision="fp32", threads=1)
    kept = pickle.dumps(predictor)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = pickle.loads(kept)
    assert np.array_equal(again.logits(texts), predictor.logits(texts))
    assert again.threads == 1
    folder.rename(tmp_path / "moved")
    with pytest.raises(UserError, match="does not exist"):
        pickle.loads(kept)
    with pytest.raises(UserError, match="has no pickle"):
        pickle.dumps(predictor_of(saved.read(tmp_path / "moved")))


def test_threads_are_the_predictors_own(adapt, texts, monkeypatch):
    before = torch.get_num_threads()
    predictor = rankwise.load(adapt(), threads=before + 1)
    inside = []
    call = predictor.classifier.forward
    monkeypatch.setattr(
        predictor.classifier, "forward", lambda *words: inside.append(torch.get_num_threads()) or call(*words)
    )
    predictor.logits(texts)
    assert set(inside) == {before + 1}
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: predictor.logits(texts), range(16)))
        assert torch.get_num_threads() == before
    folder = adapt("other")
    for number in (0, -1, 10**6, 1.5, "2", True):  # a million once ended in a panic of the tokenizer's pool
        with pytest.raises(UserError, match=f"threads is {number!r}, expected"):
            rankwise.load(folder, threads=number)
        with pytest.raises(UserError, match=f"threads is {number!r}, expected"):
            rankwise.load_many([folder], threads=number)


def test_a_pickle_of_several_loads_them_again(adapt, texts, tmp_path, monkeypatch):
    many = rankwise.load_many({"one": adapt("a"), "two": adapt("b")}, precision="fp32", threads=1)
    kept = pickle.dumps(many)
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(kept)
    assert (again.names, again.threads, again.precision) == (["one", "two"], 1, "fp32")
    for name, logits in many.logits(texts).items():
        assert np.array_equal(again.logits(texts)[name], logits)


_FAULTS = """
import ctypes, resource
C, size = ctypes.CDLL(None), ctypes.c_size_t(2**26)
C.malloc.restype = ctypes.c_void_p
def faults():  # of 64 MB, asked of the C library itself: torch's alignment moves blocks about
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(C.malloc(size))
    C.memset(block, 1, size)
    C.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""


@pytest.mark.skipif(sys.platform != "linux", reason="faults are counted as Linux counts them")
@pytest.mark.parametrize(
    ("work", "kept"),
    [
        ("import rankwise; rankwise.load(FOLDER, engine='fast').predict(['the goal'])", False),
        ("from rankwise.machine.memory import keep_freed_memory; keep_freed_memory()", True),
    ],
    ids=["a host's process", "a process of our own"],
)
def test_freed_memory_is_kept_in_our_own_processes_alone(adapt, work, kept):
    code = f"{_FAULTS}\n{work.replace('FOLDER', repr(str(adapt())))}\nprint(min(faults() for _ in range(5)))"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (int(outcome.stdout) < 1000) == kept  # of 16,384 pages


@ENGINES
def test_the_hosts_generators_and_settings_stay_as_they_were(adapt, texts, engine):
    import logging

    folder = adapt()

    def state():
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            list(warnings.filters),
            logging.getLogger("transformers").level,
            torch.is_grad_enabled(),
        )

    rankwise.load(folder, engine=engine).predict(texts)  # what libraries do when they are first imported
    before = state()
    rankwise.load(folder, engine=engine).predict(texts)
    assert state() == before


def test_threads_that_load_at_once_leave_the_hosts_settings(adapt, texts):
    import logging

    import transformers

    folder = adapt()
    level = logging.getLogger("transformers").level
    torch.manual_seed(3)
    before = torch.get_rng_state()
    transformers.logging.enable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.INFO)
    try:
        with ThreadPoolExecutor(6) as pool:
            loaded = list(pool.map(lambda _: rankwise.load(folder, engine="reference", precision="fp32"), range(12)))
        assert logging.getLogger("transformers").level == logging.INFO
        assert transformers.logging.is_progress_bar_enabled()
        assert torch.equal(torch.get_rng_state(), before)
    finally:
        transformers.logging.disable_progress_bar()
        logging.getLogger("transformers").setLevel(level)
    assert all(np.array_equal(one.logits(texts), loaded[0].logits(texts)) for one in loaded)


@ENGINES
def test_random_weights_are_made_again_without_a_trace(config, tmp_path, engine):
    config["model"] |= {"random_weights": True}
    config["engine"] = engine
    run = rankwise.train(config | {"budget": {"max_trainable": None}}, out=tmp_path / "run")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    rankwise.load(run)
    assert torch.equal(torch.get_rng_state(), before)
