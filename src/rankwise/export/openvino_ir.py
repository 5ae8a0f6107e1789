"""OpenVINO's own format in fp32, made of the ONNX graph, for `openvino` and `tokenizers` alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rankwise.export import alone, beside
from rankwise.export.onnx_graph import write_graph
from rankwise.export.subject import Subject
from rankwise.export.targets import Options, Written

# Its default on processors with bf16 instructions is bf16, whose answers differ.
_SESSION = """MODEL = openvino.Core().compile_model(str(HERE / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
"""
_USE = "`echo 'a text' | python predict.py` answers; it needs numpy, openvino and tokenizers, nothing else."


def write(subject: Subject, folder: Path, options: Options) -> Written:
    """Write the model and its program."""
    import openvino

    with tempfile.TemporaryDirectory() as temporary:
        model = openvino.convert_model(str(write_graph(subject, Path(temporary))))
        openvino.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)
    beside.write_tokenizer(subject, folder)
    beside.write_program(
        subject,
        folder,
        needs="openvino",
        imports="import openvino",
        session=_SESSION,
        scores=f"return MODEL({beside.arrays(subject)})[0]",
    )
    return Written("OpenVINO, fp32", _USE, alone.SHIPPED, unwanted=("torch", "transformers", "peft", "onnxruntime"))
