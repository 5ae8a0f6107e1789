"""The server as a process of its own: what it does at its end, and several of them on one socket."""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import processes
import rankwise

from .conftest import Client

pytestmark = pytest.mark.slow


@contextmanager
def process(*words):
    """`rankwise serve` and a client of it; it gets SIGTERM at the end, if it has not ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = Client(port)

    def healthy():
        try:
            return client("/healthz")[0] == 200
        except OSError:
            return False

    with processes.Process("serve", *words, "--port", port) as started:
        started.wait_for(healthy)
        assert "classifier" in started.out
        yield started, client
        started.send_signal(signal.SIGTERM)
        started.wait(60)


def test_sigterm_loses_no_accepted_request(folders):
    with process(f"moods={folders['moods']}") as (server, client):
        text = "the goal of the match " * 400
        outcomes = []

        def ask():
            outcomes.append(client("/v1/classify", {"texts": [text] * 256})[0])

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        metrics = ""
        for _ in range(200):
            metrics = client("/metrics")[1]
            if float(re.search(r"^rankwise_waiting_answers (\S+)", metrics, re.M)[1]) >= 256 * 6:
                break
            if outcomes:
                break
            time.sleep(0.01)
        server.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert server.wait(60) in (0, -signal.SIGTERM)
    assert outcomes == [200] * 6


def test_a_held_connection_ends_with_an_answer(folders):
    """Clients that ask again and again on one connection hear of the end with an answer, not with a cut."""
    with process(f"moods={folders['moods']}") as (server, client):
        body, lost, answered = json.dumps({"texts": ["the goal"]}), [], []

        def ask_on():
            connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
            while True:
                try:
                    connection.request("POST", "/v1/classify", body, {"content-type": "application/json"})
                    answer = connection.getresponse()
                    answered.append(json.loads(answer.read())["results"])
                except Exception as error:
                    lost.append(error)
                    return
                if answer.getheader("connection") == "close":
                    return

        threads = [threading.Thread(target=ask_on) for _ in range(16)]
        for thread in threads:
            thread.start()
        while len(answered) < 50 and not lost:
            time.sleep(0.01)
        server.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        server.wait(60)
    assert lost == []
    assert len(answered) >= 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_workers_share_a_socket_and_know_the_same_classifiers(folders):
    root = folders["topics"].parent
    with process(f"topics={folders['topics']}", "--workers", 3, "--models-folder", root) as (server, client):
        expected = rankwise.load(folders["topics"], precision="fp32").predict_proba(["the goal"])[0]
        children = workers_of(server.pid)
        assert len(children) == 3
        assert client("/v1/models/moods", method="PUT")[0] == 200
        for _ in range(24):  # each on a connection of its own: any of the processes answers
            assert [one["name"] for one in client("/v1/models")[1]["models"]] == ["topics", "moods"]
            said = client("/v1/classify", {"texts": ["the goal"], "model": "topics"})[1]["results"]["topics"][0]
            np.testing.assert_allclose(list(said["probabilities"].values()), expected, atol=1e-5)
        metrics = client("/metrics")[1]
        assert float(re.search(r'^rankwise_texts_total\{model="topics"\} (\S+)', metrics, re.M)[1]) == 24
        assert float(re.search(r"^rankwise_models (\S+)", metrics, re.M)[1]) == 2
        assert client("/v1/models/nobody", method="PUT")[0] == 409

        os.kill(children[0], signal.SIGKILL)
        for _ in range(300):
            again = workers_of(server.pid)
            if len(again) == 3 and children[0] not in again:
                break
            time.sleep(0.1)
        for _ in range(24):
            assert client("/v1/classify", {"texts": ["a"], "model": "moods"})[0] == 200
        assert client("/v1/models/topics", method="DELETE")[0] == 200
        for _ in range(24):
            assert [one["name"] for one in client("/v1/models")[1]["models"]] == ["moods"]
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert not any(Path(f"/proc/{one}").exists() for one in again)


def workers_of(process: int) -> list[int]:
    """Its children that run."""
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_workers_compute_with_one_thread(folders, capsys):
    from rankwise.cli import main

    assert main(["serve", str(folders["moods"]), "--workers", "2", "--threads", "4"]) == 2
    assert "one thread each" in capsys.readouterr().err
    assert main(["serve", str(folders["moods"]), "--workers", "0"]) == 2


@pytest.mark.parametrize("words", [("--port", "70000"), ("--port", "-1"), ("--threads", "0")])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_numbers_that_are_none(words, workers, folders, capsys):
    from rankwise.cli import main

    assert main(["serve", str(folders["moods"]), "--workers", workers, *words]) == 2
    assert f"{words[0]} is {words[1]}" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken(workers, folders, capsys):
    from rankwise.cli import main

    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(folders["moods"]), "--host", "::1", "--port", port, "--workers", workers]) == 2
    assert f"cannot listen at [::1]:{port}" in capsys.readouterr().err
