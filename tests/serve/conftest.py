"""A real server on a port of this machine, over adapters on a tiny encoder."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
import torch

from rankwise import config as configuration
from rankwise.models import adapter_file, assemble

LABELS = {"topics": ["sport", "business", "science"], "moods": ["good", "bad"], "tags": ["new", "old", "odd", "even"]}


def pytest_collection_modifyitems(items):
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        for item in items:
            if "/serve/" in str(item.path):
                item.add_marker(pytest.mark.skip(reason="needs the extra 'serve'"))


@pytest.fixture(scope="session")
def folders(tmp_path_factory, tiny_model):
    """Adapters by name in one folder; tags may carry several labels."""
    from transformers import AutoTokenizer

    root = tmp_path_factory.mktemp("served")
    for number, (name, labels) in enumerate(LABELS.items()):
        tree = {"model": {"name": str(tiny_model)}, "adapter": {"rank": 2}, "data": {"max_length": 24}}
        options = [
            "budget.max_trainable=null",
            "model.precision=fp32",
            f"data.multi_label={str(name == 'tags').lower()}",
        ]
        model = assemble.build(configuration.load(tree, options), len(labels), labels)
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        adapter_file.save(
            model.assembly, root / name, tokenizer=AutoTokenizer.from_pretrained(tiny_model), label_names=labels
        )
    return {name: root / name for name in LABELS}


class Client:
    """Plain HTTP to a server under test."""

    def __init__(self, port: int) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"

    def __call__(self, path, body=None, method=None, headers=None, raw=None):
        """Status and content, JSON where it is."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"content-type": "application/json", **(headers or {})}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, content = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read().decode()
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content


@contextmanager
def serving(runs, **options):
    """A server in a thread of this process."""
    from rankwise.serve.running import Serving, server_of

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = server_of(runs, Serving(port=port, **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for _ in range(600):
            if server.started:
                break
            time.sleep(0.05)
        assert server.started
        yield Client(port)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(folders):
    with serving({name: folders[name] for name in LABELS}, folder=next(iter(folders.values())).parent) as made:
        yield made
