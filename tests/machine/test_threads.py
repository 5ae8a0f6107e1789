"""Threads: whose number is whose, and that kernels' threads survive a fork and wait for nobody."""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import pytest
import torch

from engine.parity import texts
from engine.test_native import adapted_wide, each, made
from rankwise.machine.threads import beside_kernels, limited_to, of_kernels


def test_torch_has_one_thread_beside_kernels_and_these_the_rest():
    before = torch.get_num_threads()
    with limited_to(3):
        with beside_kernels(True):
            assert (torch.get_num_threads(), of_kernels()) == (1, 3)
            with beside_kernels(True):
                assert (torch.get_num_threads(), of_kernels()) == (1, 3)
            assert (torch.get_num_threads(), of_kernels()) == (1, 3)
        assert (torch.get_num_threads(), of_kernels()) == (3, 3)
        with beside_kernels(False):
            assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == of_kernels() == before


def logits(classifier, threads):
    with torch.inference_mode(), limited_to(threads), beside_kernels(True):
        return classifier(classifier.collate(texts())).numpy()


@each
def test_logits_are_the_same_by_any_number_of_threads_from_any_of_them(name):
    classifier = made(adapted_wide("bert"), name).eval()
    alone = logits(classifier, 1)
    found = {}
    callers = [threading.Thread(target=lambda n=n: found.update({n: logits(classifier, n)})) for n in (2, 5, 16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for count in (2, 5, 16):
        np.testing.assert_array_equal(found[count], alone, err_msg=f"{count} threads")


def answer(classifier, to):
    to.send(logits(classifier, 2))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@each
def test_a_forked_process_computes_with_threads_of_its_own(name):
    classifier = made(adapted_wide("bert"), name).eval()
    expected = logits(classifier, 2)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=answer, args=(classifier, theirs))
    child.start()
    try:
        assert ours.poll(60), "the forked process does not answer"
        np.testing.assert_array_equal(ours.recv(), expected)
    finally:
        child.kill()
        child.join()
    np.testing.assert_array_equal(logits(classifier, 2), expected)


@each
def test_a_process_forked_while_another_thread_computes_answers(name):
    classifier = made(adapted_wide("bert"), name).eval()
    expected, over = logits(classifier, 2), threading.Event()

    def compute():
        while not over.is_set():
            logits(classifier, 2)

    other = threading.Thread(target=compute)
    other.start()
    try:
        for _ in range(5):
            ours, theirs = multiprocessing.Pipe()
            child = multiprocessing.get_context("fork").Process(target=answer, args=(classifier, theirs))
            child.start()
            try:
                assert ours.poll(30), "the forked process does not answer"
                np.testing.assert_array_equal(ours.recv(), expected)
            finally:
                child.kill()
                child.join()
    finally:
        over.set()
        other.join()
