"""What the server answers: each classifier as it answers alone, and every request that it must refuse."""

import http.client
import json
import re
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import rankwise
from rankwise.errors import UserError
from rankwise.records import AdapterRecord, Decision
from rankwise.records.adapter import FILE
from rankwise.records.record import changing
from rankwise.serve import running
from rankwise.serve.limits import Limits

from .conftest import LABELS, serving

TEXTS = ["the goal of the match", "", "shares of the bank in a merger", "\ud83d half of an emoji"]


@pytest.fixture(scope="module")
def alone(folders):
    return {name: rankwise.load(folder, precision="fp32") for name, folder in folders.items()}


def test_one_classifier(client, alone):
    status, said = client("/v1/classify", {"texts": TEXTS[:3], "model": "topics"})
    assert status == 200
    assert list(said["results"]) == ["topics"]
    expected = alone["topics"].predict_proba(TEXTS[:3])
    for answer, row in zip(said["results"]["topics"], expected, strict=True):
        np.testing.assert_allclose(list(answer["probabilities"].values()), row, atol=1e-5)
        assert answer["labels"] == [LABELS["topics"][row.argmax()]]
        assert answer["threshold"] is None


def test_all_classifiers_where_none_is_named(client, alone):
    status, said = client("/v1/classify", {"texts": TEXTS, "model": None})
    assert status == 200
    assert list(said["results"]) == list(LABELS)
    assert [one["labels"] for one in said["results"]["tags"][:3]] == alone["tags"].predict(TEXTS[:3])
    assert said["results"]["tags"][0]["threshold"] == 0.5


def test_words_alone_beside_the_others(folders, tmp_path):
    pytest.importorskip("sklearn")
    from rankwise.baselines import words

    words.fit(TEXTS[:1] * 4 + TEXTS[2:3] * 4, np.array([0] * 4 + [1] * 4), ["sport", "business"]).save(
        tmp_path / "words"
    )
    expected = rankwise.load(tmp_path / "words").predict_proba(TEXTS)
    with serving({"topics": folders["topics"], "counted": tmp_path / "words"}) as client:
        _, one = client("/v1/classify", {"texts": TEXTS, "model": "counted"})
        _, every = client("/v1/classify", {"texts": TEXTS})
        for said in (one, every):
            shares = [list(answer["probabilities"].values()) for answer in said["results"]["counted"]]
            np.testing.assert_allclose(shares, expected, atol=1e-6)
        _, told = client("/v1/models")
        assert (told["models"][1]["base"], told["models"][1]["max_tokens"]) == ("", None)


@pytest.mark.parametrize("name", ["topics", "tags"])
def test_thresholds_that_were_fitted_decide_what_is_served(folders, tmp_path, alone, name):
    fitted = shutil.copytree(folders[name], tmp_path / name)
    last = LABELS[name][-1]
    limits = {last: 0.001} if name == "topics" else dict.fromkeys(LABELS[name], 0.9)
    with changing(fitted / FILE, AdapterRecord) as adapter:
        adapter.decision = Decision(goal=f"recall@precision=0.5:{last}", thresholds=limits, rows=90)
    expected = rankwise.load(fitted, precision="fp32").predict(TEXTS[:3])
    assert expected != alone[name].predict(TEXTS[:3]), "the thresholds decide nothing"
    with serving([str(fitted)]) as client:
        _, said = client("/v1/classify", {"texts": TEXTS[:3], "model": name})
        _, same = client("/predict", {"inputs": TEXTS[0]})
    answers = said["results"][name]
    assert [one["labels"] if name == "tags" else one["labels"][0] for one in answers] == expected
    assert all(one["thresholds"] == pytest.approx(limits) and one["threshold"] is None for one in answers)
    scores = {one["label"]: one["score"] for one in same}
    assert scores == pytest.approx(answers[0]["probabilities"], abs=1e-5), "a decision changes no probability"


def test_the_schema_of_text_embeddings_inference(client, alone):
    row = alone["moods"].predict_proba(TEXTS[:1])[0]
    status, said = client("/predict?model=moods", {"inputs": TEXTS[0]})
    assert status == 200
    assert [one["label"] for one in said] == [LABELS["moods"][label] for label in np.argsort(-row)]
    assert [one["score"] for one in said] == sorted((one["score"] for one in said), reverse=True)
    _, batch = client("/predict?model=moods", {"inputs": [[TEXTS[0]], [TEXTS[2]]]})
    assert [one["label"] for one in batch[0]] == [one["label"] for one in said]
    assert [one["score"] for one in batch[0]] == pytest.approx([one["score"] for one in said], abs=1e-5)
    assert len(batch) == 2
    _, raw = client("/predict?model=moods", {"inputs": TEXTS[0], "raw_scores": True})
    assert max(one["score"] for one in raw) == pytest.approx(float(alone["moods"].logits(TEXTS[:1]).max()), abs=1e-4)
    assert client("/predict", {"inputs": "a"})[0] == 422
    assert client("/predict?model=moods", {"inputs": ["a", "b"]})[0] == 422


def test_what_it_says_of_itself(client):
    assert client("/healthz") == (200, {"status": "alive"})
    assert client("/readyz") == (200, {"status": "ready"})
    models = client("/v1/models")[1]["models"]
    assert {one["name"]: one["labels"] for one in models} == LABELS
    assert all(one["shares_base"] and "/" not in one["base"] for one in models)
    assert {"/v1/classify", "/predict", "/v1/models", "/metrics"} <= client("/openapi.json")[1]["paths"].keys()
    client("/v1/classify", {"texts": ["a"], "model": "moods"})
    metrics = client("/metrics")[1]
    assert 'rankwise_requests_total{path="/v1/classify",status="200"}' in metrics
    assert float(re.search(r'^rankwise_texts_total\{model="moods"\} (\S+)', metrics, re.M)[1]) >= 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"texts": []}, 422),
        ({"texts": "one"}, 422),
        ({"texts": [1]}, 422),
        ({"texts": ["a"], "model": "nobody"}, 404),
        ({"texts": ["a"], "other": 1}, 422),
        ({"texts": ["a"] * 257}, 413),
        ({"texts": ["a" * 100_001]}, 413),
        ([], 422),
        (None, 422),
    ],
)
def test_requests_that_are_refused(client, body, status):
    assert client("/v1/classify", body, method="POST", raw=json.dumps(body).encode())[0] == status


def test_bodies_that_are_refused(client):
    assert client("/v1/classify", raw=b"{", method="POST")[0] == 422
    assert client("/v1/classify", raw=b"\xff\xfe", method="POST")[0] in (400, 422)
    assert client("/v1/classify", raw=b"{}", headers={"content-type": "text/plain"})[0] == 415
    assert client("/v1/classify", raw=b" " * 4_000_001)[0] == 413
    assert client("/v1/models", headers={"host": "evil.example"})[0] == 421
    assert client("/v1/classify", {"texts": ["a"]}, headers={"x-long": "a" * 20_000})[0] in (400, 431)
    assert client("/v1/classify", {"texts": ["still here"]})[0] == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (rb'{"texts": ["a"], "model": "\ud800"}', 404),
        (rb'{"texts": ["a"], "\ud800": 1}', 422),
        (rb'{"texts": [1, "\ud800"]}', 422),
        (b'{"texts": NaN}', 422),
        (b'{"texts": ["a"], "model": Infinity}', 422),
        (b'{"texts": [1], "model": "' + b"a" * 1_000_000 + b'"}', 422),
    ],
)
def test_what_no_json_holds_is_refused_without_being_repeated(client, body, status):
    answered, content = client("/v1/classify", raw=body, method="POST")
    assert answered == status
    assert content["detail"]
    assert len(str(content)) < 1000


@pytest.mark.parametrize(
    ("host", "status"),
    [("LOCALHOST:80", 200), ("127.0.0.2:80", 200), ("[::1]", 200), ("127.0.0.1.evil.example", 421), ("", 421)],
)
def test_names_of_this_machine(client, host, status):
    assert client("/healthz", headers={"host": host})[0] == status


def test_classifiers_come_and_go_from_one_folder(folders, client):
    with serving({}, folder=folders["topics"].parent) as empty:
        assert empty("/readyz")[0] == 503
        assert empty("/v1/classify", {"texts": ["a"]})[0] == 503
        assert empty("/v1/models/moods", method="PUT")[0] == 200
        assert empty("/v1/models/moods", method="PUT")[0] == 200  # replaced
        assert empty("/v1/classify", {"texts": ["a"], "model": "moods"})[0] == 200
        assert empty("/v1/models/moods", method="DELETE") == (200, {"removed": "moods"})
        assert empty("/v1/models/moods", method="DELETE")[0] == 404
        for name in ("..", "%2e%2e", "..%2fserved0", "nobody", ".hidden"):
            assert empty(f"/v1/models/{name}", method="PUT")[0] in (404, 405, 409), name
        assert empty("/v1/models")[1]["models"] == []


def test_nothing_is_added_without_a_folder(folders):
    with serving({"moods": folders["moods"]}) as client:
        status, said = client("/v1/models/topics", method="PUT")
        assert status == 409
        assert "--models-folder" in said["detail"]


def test_a_token_is_asked_for(folders):
    with serving({"moods": folders["moods"]}, token="a-long-enough-token") as client:
        assert client("/v1/models")[0] == 401
        assert client("/v1/models", headers={"authorization": "Bearer wrong"})[0] == 401
        assert client("/v1/models", headers={"authorization": "Bearer a-long-enough-token"})[0] == 200
        assert client("/metrics")[0] == 401
        assert client("/healthz")[0] == 200


def test_other_addresses_need_a_token(folders):
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(UserError, match="RANKWISE_TOKEN"):
            running.check_address(host, None)
        running.check_address(host, "a-long-enough-token")
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        running.check_address(host, None)
    with pytest.raises(UserError, match="at least 16"):
        running.check_address("0.0.0.0", "short")


def test_mixed_requests_at_once_each_get_their_own_answer(client, alone):
    def ask(number):
        name = list(LABELS)[number % 3]
        text = " ".join(["the goal of shares"] * (1 + number % 4))
        return name, text, client("/v1/classify", {"texts": [text], "model": name})

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(120)))
    for name, text, (status, said) in answers:
        assert status == 200
        row = alone[name].predict_proba([text])[0]
        np.testing.assert_allclose(list(said["results"][name][0]["probabilities"].values()), row, atol=1e-5)


def test_a_full_queue_says_when_to_come_again(folders):
    with serving({"moods": folders["moods"]}, limits=Limits(queued_texts=8, texts=256)) as client:
        text = "the goal of the match " * 200

        def ask(_):
            connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
            connection.request(
                "POST", "/v1/classify", json.dumps({"texts": [text] * 8}), {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            return answer.status, answer.getheader("retry-after")

        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(ask, range(72)))
    assert {status for status, _ in answers} == {200, 429}
    assert {after for status, after in answers if status == 429} == {"1"}


HEAD = b"POST /v1/classify HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"


def read_all(connection) -> bytes:
    """What comes until the server closes."""
    pieces = []
    while piece := connection.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


def test_slow_and_cut_connections_are_closed(folders):
    with serving({"moods": folders["moods"]}, limits=Limits(body_s=0.3)) as client:
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as slow:
            slow.sendall(HEAD)
            assert b"408" in slow.recv(1000)
        with socket.create_connection(("127.0.0.1", client.port), timeout=20) as cut:
            cut.sendall(HEAD)
        assert client("/v1/classify", {"texts": ["a"]})[0] == 200


def test_heads_that_come_slowly_or_never_are_closed(folders):
    with serving({"moods": folders["moods"]}, limits=Limits(head_s=0.5)) as client:
        address = ("127.0.0.1", client.port)
        with socket.create_connection(address, timeout=20) as silent:
            assert read_all(silent) == b""
        with socket.create_connection(address, timeout=20) as drop:
            drop.sendall(b"POST /v1/classify HTTP/1.1\r\n")
            stop = threading.Event()

            def drip():  # every byte of it within any time between two bytes
                while not stop.wait(0.1):
                    try:
                        drop.sendall(b"x-a: b\r\n")
                    except OSError:
                        return

            dripping = threading.Thread(target=drip)
            dripping.start()
            assert read_all(drop).startswith(b"HTTP/1.1 408 ")
            stop.set()
            dripping.join()
        with socket.create_connection(address, timeout=20) as kept:  # a second head on a connection that was answered
            kept.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\nGET /healthz HT")
            said = read_all(kept)
            assert said.startswith(b"HTTP/1.1 200 ")
            assert said.count(b"HTTP/1.1 408 ") == 1
        assert client("/v1/classify", {"texts": ["a"]})[0] == 200


def test_an_answer_that_is_not_read_is_given_up(folders):
    with serving(folders, limits=Limits(read_s=0.5)) as client:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", client.port))
            body = json.dumps({"texts": ["a"] * 256}).encode()
            head = HEAD[:-1].replace(b"length: 50", b"length: %d" % len(body))
            deaf.settimeout(0.2)
            closed, ask = False, head + body
            started = time.monotonic()
            while time.monotonic() - started < 120:
                try:
                    ask = ask[deaf.send(ask) :] or head + body
                except TimeoutError:  # its answers wait, so the server reads no more
                    continue
                except OSError:
                    closed = True
                    break
            assert closed
        assert client("/v1/classify", {"texts": ["a"]})[0] == 200
