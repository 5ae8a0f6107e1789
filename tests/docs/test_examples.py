"""The examples run as they stand, on a tiny encoder."""

import json
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import processes
from conftest import sentences, write_csv

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script, *words, folder):
    outcome = processes.finished(*words, script=EXAMPLES / script, folder=folder)
    assert outcome.returncode == 0, outcome.err
    return outcome.out


def test_own_csv(tmp_path, tiny_model):
    write_csv(tmp_path / "mine.csv", sentences(90, 1))
    printed = run("own_csv.py", "mine.csv", "--model", str(tiny_model), "train.epochs=1", folder=tmp_path)
    assert "95% interval" in printed
    assert (tmp_path / "runs" / "own" / "report.html").is_file()


def test_multi_label(tmp_path, tiny_model):
    printed = run("multi_label.py", "--model", str(tiny_model), "--rows", "60", "train.epochs=1", folder=tmp_path)
    result = json.loads((tmp_path / "runs" / "multi-label" / "result.json").read_text())
    assert set(result["labels"]) == {"weather", "travel", "food", "music"}
    assert f"micro F1 {result['metrics']['test']['micro_f1']:.3f}" in printed
    html = (tmp_path / "runs" / "multi-label" / "report.html").read_text(encoding="utf-8")
    assert "Decisions by label" in html


@pytest.mark.slow
def test_notebook(tmp_path, tiny_model, monkeypatch):
    """Every cell, in a kernel of its own, with the names of model and data replaced."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    rows = write_csv(tmp_path / "rows.csv", sentences(90, 1))
    notebook = nbformat.read(EXAMPLES / "free_gpu.ipynb", as_version=4)
    nbformat.validate(notebook)
    smaller = {
        "packaged:all-MiniLM-L6-v2": str(tiny_model),
        "packaged:bbc-news": str(rows),
        "STEPS = 200": "STEPS = 4",
        '"max_length": 128': '"max_length": 32',
    }
    for cell in notebook.cells:
        for shown, used in smaller.items():
            cell.source = cell.source.replace(shown, used)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    lines = (tmp_path / "submission.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert all(
        cell.outputs == []
        for cell in nbformat.read(EXAMPLES / "free_gpu.ipynb", as_version=4).cells
        if cell.cell_type == "code"
    )


@pytest.mark.slow
@pytest.mark.skipif(find_spec("grpc_reflection") is None, reason="needs ray[serve]")
def test_ray_serve(tmp_path, tiny_model, news):
    import rankwise

    tree = {"model": {"name": str(tiny_model)}, "data": {"train": str(news["train"])}, "train": {"steps": 4}}
    paths = [str(rankwise.train(tree, out=tmp_path / name).path) for name in ("first", "second")]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    printed = run("ray_serve.py", *paths, "--port", str(port), "--once", "a goal in the match", folder=tmp_path)
    expected = {
        name: rankwise.load(path).predict(["a goal in the match"])[0]
        for name, path in zip(("first", "second"), paths, strict=True)
    }
    assert dict(line.split() for line in printed.splitlines()[-2:]) == expected
