"""Changes that go to every worker, of which one may not answer."""

import json
import os
import select
import signal
import socket
import threading
import time

import pytest

from rankwise.serve import workers

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


class Slow:
    """The first worker asks for two changes; the second is busy with its first one for longer than an answer may take."""

    def __init__(self, link, marks):
        self.link, self.marks, self.stopped = link, marks, threading.Event()
        self.asks = self.is_first("asks")

    def is_first(self, what):
        try:
            (self.marks / what).mkdir()
        except FileExistsError:
            return False
        return True

    def apply(self, change):
        if not self.asks and self.is_first("hangs"):
            time.sleep(60)
            return "late"
        return change[0]

    def stop(self):
        self.stopped.set()

    def run(self, sockets):
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        try:
            if self.asks:
                told = [self.link.everywhere((change,)) for change in ("one", "two")]
                (self.marks / "told.json").write_text(json.dumps(told))
        finally:
            if self.asks:
                os.kill(os.getppid(), signal.SIGTERM)
        self.stopped.wait(60)


def test_a_worker_that_does_not_answer_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_ANSWER_S", 3.0)
    listening = socket.create_server(("127.0.0.1", 0))
    try:
        workers.Workers(listening, 2, lambda link: Slow(link, tmp_path), lambda change: None).run()
    finally:
        listening.close()
    first, second = json.loads((tmp_path / "told.json").read_text())
    assert sorted(first, key=str) == [None, "one"]
    assert set(second) <= {"two", None}, "a late answer is not taken for one to something else"


class Quick:
    """It ends at a signal, once it runs."""

    def __init__(self, link):
        self.stopped = threading.Event()

    def apply(self, change):
        return None

    def stop(self):
        self.stopped.set()

    def run(self, sockets):
        signal.signal(signal.SIGTERM, lambda *_: self.stop())
        self.stopped.wait(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_end_as_it_begins_ends(monkeypatch, number):
    """Between the fork and its own way of ending it has the first process's, which is not for it."""
    listening, fork = socket.create_server(("127.0.0.1", 0)), os.fork

    def told_at_once():
        process = fork()
        if process == 0:
            os.kill(os.getpid(), number)
        return process

    monkeypatch.setattr(os, "fork", told_at_once)
    started = workers.Workers(listening, 1, Quick, lambda change: None)
    before = signal.signal(number, lambda *_: None)
    try:
        started._start()
        (child,) = started._children
        assert select.select([child.ended], [], [], 20)[0], "it has not ended"
        os.waitpid(child.process, 0)
    finally:
        signal.signal(number, before)
        listening.close()
