"""ONNX in fp32: one graph with dynamic axes, for `onnxruntime` and `tokenizers` alone."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rankwise.export import alone, beside
from rankwise.export.subject import Plain, Subject
from rankwise.export.targets import Options, Written
from rankwise.models.base import quiet

GRAPH = "model.onnx"
_LIMIT = 2_000_000_000
"""bytes that protobuf, the format of the graph's file, can hold; larger weights lie in a file beside it"""

USE = "`echo 'a text' | python predict.py` answers; it needs numpy, onnxruntime and tokenizers, nothing else."


def write(subject: Subject, folder: Path, options: Options) -> Written:
    """Write the graph and its program."""
    write_graph(subject, folder)
    write_program(subject, folder)
    return Written("ONNX, fp32", USE, alone.SHIPPED, unwanted=("torch", "transformers", "peft"))


def write_graph(subject: Subject, folder: Path) -> Path:
    """`model.onnx` in a folder: `subject.inputs`, (texts, tokens) -> logits, (texts, classes).

    By torch's exporter of captured programs (`dynamo`). The older tracing one gives wrong answers for every length but
    the example's, without a word: `transformers` decides by the example's values whether a mask is needed.
    """
    # Two texts of unlike lengths: a dimension of one would be taken for a constant.
    tokens = min(subject.saved.max_length, 8)
    ids = torch.full((2, tokens), int(subject.saved.tokenizer.pad_token_id))
    ids[0], ids[1, :2] = 2, 2
    mask = torch.ones_like(ids)
    mask[1, 2:] = 0
    example = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.ones_like(ids)}
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _silent():
        program = torch.onnx.export(
            Plain(subject.model, subject.inputs).eval(),
            tuple(example[name] for name in subject.inputs),
            dynamo=True,
            dynamic_shapes=(tuple(axes for _ in subject.inputs),),
            input_names=list(subject.inputs),
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    size = sum(parameter.numel() * parameter.element_size() for parameter in subject.model.parameters())
    path = folder / GRAPH
    program.save(str(path), external_data=size > _LIMIT)
    return path


def write_program(subject: Subject, folder: Path) -> None:
    """The tokenizer and `predict.py`."""
    beside.write_tokenizer(subject, folder)
    beside.write_program(
        subject,
        folder,
        needs="onnxruntime",
        imports="import onnxruntime",
        session=f'SESSION = onnxruntime.InferenceSession(str(HERE / "{GRAPH}"), providers=["CPUExecutionProvider"])\n',
        scores=f"return SESSION.run(None, {beside.arrays(subject)})[0]",
    )


def session_of(path: Path) -> Any:
    """An onnxruntime session on the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the exporter's notes to its developers off the screen."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with quiet(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
