"""ONNX in int8: several ways to round, each judged on the validation rows, the fastest that answers alike is kept.

Rounding a tensor's activations by one scale breaks classifiers: a few columns of some inputs are tens of times larger
than the rest. What helps differs from model to model, so all of it is tried: a scale for each column of the weights,
leaving out the products that suffer most, scales fixed on training rows, and a scale for every 32 numbers of a token.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.errors import UserError
from rankwise.export import alone
from rankwise.export.judge import LEAST_AGREEMENT, MOST_LOST_POINTS, Judgement, judge
from rankwise.export.onnx_graph import GRAPH, USE, session_of, write_graph, write_program
from rankwise.export.subject import Floats, Subject
from rankwise.export.targets import Options, Written
from rankwise.machine import segments

CALIBRATION_TEXTS = 128
"""of training: scales of activations are known from fewer than the texts that weights are"""
_MATRIX = 2
_BLOCK = 32
"""numbers of a token under one scale"""
_LEFT_OUT = (0.125, 0.25, 0.5)
"""shares of the products, the ones that suffer most"""

Batch = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Material:
    """What the ways to round are given: a prepared fp32 graph, its products with weights, and batches of training texts."""

    graph: Path
    products: Sequence[str]
    batches: Sequence[Batch]


def write(subject: Subject, folder: Path, options: Options) -> Written:
    """Round in every way, judge each, and write the one to keep."""
    rows = subject.validation
    if rows is None and not options.accept_loss:
        raise UserError(
            f"{subject.name}: its validation rows cannot be read again, so what int8 loses cannot be judged; "
            "--accept-loss writes it unjudged"
        )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        material = _material(subject, Path(temporary))
        ways = _ways(material)
        kept, judgements = _best(subject, material, ways, Path(temporary), options)
        shutil.copyfile(kept, folder / GRAPH)
    write_program(subject, folder)
    logits, _ = _logits(folder / GRAPH, subject, subject.proof.texts, 1)
    return Written(
        "ONNX, int8",
        USE,
        alone.SHIPPED_ONE_BY_ONE,
        unwanted=("torch", "transformers", "peft"),
        facts=[judgements[0].told()] if judgements else ["Unjudged: there were no validation rows."],
        expected=logits,
        report={"tried": judgements},
    )


def _best(
    subject: Subject, material: Material, ways: Mapping[str, Callable[[Path], Path]], folder: Path, options: Options
) -> tuple[Path, list[Judgement]]:
    """The graph to keep, and what was tried, that first."""
    rows = subject.validation
    if rows is None:
        return _blockwise(material, folder / "unjudged.onnx"), []
    before, speed = _logits(material.graph, subject, rows.texts)
    options.say(f"fp32: {speed:,.0f} texts/s, {material.graph.stat().st_size / 1e6:.1f} MB")
    made: dict[str, Path] = {}
    tried: list[Judgement] = []
    for number, (name, way) in enumerate(ways.items()):
        path = way(folder / f"{number}.onnx")
        after, speed = _logits(path, subject, rows.texts)
        tried.append(judge(name, before, after, rows, saved=subject.saved, texts_per_s=speed, size=path.stat().st_size))
        made[name] = path
        options.say(tried[-1].told())
    passing = [judgement for judgement in tried if judgement.passes]
    if not passing and not options.accept_loss:
        closest = max(tried, key=lambda judgement: judgement.agreement)
        raise UserError(
            f"int8 loses too much of this classifier: at least {100 * LEAST_AGREEMENT}% the same answers and at most "
            f"{MOST_LOST_POINTS} points are asked for, the closest is {closest.told()}; --accept-loss writes it all the same"
        )
    chosen = max(passing, key=lambda one: one.texts_per_s) if passing else max(tried, key=lambda one: one.agreement)
    return made[chosen.name], [chosen, *(judgement for judgement in tried if judgement is not chosen)]


# --- ways to round ------------------------------------------------------------------------------------


def _ways(material: Material) -> dict[str, Callable[[Path], Path]]:
    """By name: each writes a graph to a path and returns it."""
    ways: dict[str, Callable[[Path], Path]] = {"per column": lambda path: _dynamic(material, path, [])}
    suffering = _by_error(material)
    for share in _LEFT_OUT:
        left_out = suffering[: max(1, round(share * len(suffering)))]
        name = f"per column, {len(left_out)} of {len(suffering)} products in fp32"
        ways[name] = lambda path, left_out=left_out: _dynamic(material, path, left_out)  # type: ignore[misc]
    if material.batches:
        ways["fixed scales"] = lambda path: _static(material, path)
    ways["per token and block"] = lambda path: _blockwise(material, path)
    return ways


def _dynamic(material: Material, path: Path, left_out: Sequence[str]) -> Path:
    """Weights by a scale a column, activations by one a tensor, found anew in every batch."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    products = [name for name in material.products if name not in left_out]
    quantize_dynamic(
        str(material.graph), str(path), per_channel=True, weight_type=QuantType.QInt8, nodes_to_quantize=products
    )
    return path


def _static(material: Material, path: Path) -> Path:
    """Activations by scales fixed on training texts."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(material.batches)

        def get_next(self) -> Any:
            return next(self.batches, None)

    quantize_static(
        str(material.graph),
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=list(material.products),
    )
    return path


def _blockwise(material: Material, path: Path) -> Path:
    """Weights and every token's activations by a scale for each block of numbers (`accuracy_level` 4: int8 products)."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    how = DefaultWeightOnlyQuantConfig(block_size=_BLOCK, is_symmetric=True, accuracy_level=4, bits=8)
    rounded = MatMulNBitsQuantizer(onnx.load(str(material.graph)), bits=8, block_size=_BLOCK, algo_config=how)
    rounded.process()
    rounded.model.save_model_to_file(str(path), False)
    return path


def _by_error(material: Material) -> list[str]:
    """The products with weights, that which one scale for all its input disturbs most first.

    The error is |round(x) W - x W| / |x W| over the tokens of a few training texts.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(material.graph))
    nodes = {node.name: node for node in graph.graph.node if node.name in material.products}
    weights = {tensor.name: tensor for tensor in graph.graph.initializer}
    known = {output.name for output in graph.graph.output}
    for node in nodes.values():
        if node.input[0] not in known:
            graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.input[0]))
            known.add(node.input[0])
    watched = material.graph.with_name("watched.onnx")
    onnx.save(graph, str(watched))
    session = session_of(watched)
    inputs = [node.input[0] for node in nodes.values()]
    batch = material.batches[0] if material.batches else _made_up(session)
    seen = dict(zip(inputs, session.run(inputs, dict(batch)), strict=True))
    errors = {}
    for name, node in nodes.items():
        weight = numpy_helper.to_array(weights[node.input[1]])
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        x = seen[node.input[0]].reshape(-1, weight.shape[1] if transposed else weight.shape[0])
        matrix = weight.T if transposed else weight
        step = float(x.max() - x.min()) / 255 or 1.0
        exact = x @ matrix
        errors[name] = np.linalg.norm((np.rint(x / step) * step - x) @ matrix) / (np.linalg.norm(exact) or 1.0)
    return sorted(errors, key=lambda name: -errors[name])


# --- material and answers -----------------------------------------------------------------------------


def _material(subject: Subject, folder: Path) -> Material:
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    written = write_graph(subject, folder)
    prepared = folder / "prepared.onnx"
    quant_pre_process(str(written), str(prepared), skip_symbolic_shape=True)
    graph = onnx.load(str(prepared)).graph
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == _MATRIX}
    products = [n.name for n in graph.node if n.op_type in ("MatMul", "Gemm") and n.input[1] in matrices]
    rows = subject.train
    texts = [] if rows is None else rows.texts[:CALIBRATION_TEXTS]
    batches = [batch for _, batch in _batches(subject, texts, 16)]
    return Material(prepared, products, batches)


def _made_up(session: Any) -> Batch:
    made = {"input_ids": np.arange(1, 17)[None]}
    return {one.name: made.get(one.name, np.ones((1, 16), np.int64)) for one in session.get_inputs()}


def _batches(subject: Subject, texts: Sequence[str], size: int) -> Iterator[tuple[Any, Batch]]:
    """Texts of similar length together, padded: their rows, and the graph's inputs. Shape of each: (texts, tokens)"""
    saved = subject.saved
    tokens = saved.tokens_of(texts)
    order = np.argsort([len(ids) for ids in tokens], kind="stable")
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        longest = max(len(tokens[row]) for row in rows)
        ids = np.full((len(rows), longest), int(saved.tokenizer.pad_token_id), np.int64)
        mask = np.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(tokens[row])], mask[place, : len(tokens[row])] = tokens[row], 1
        inputs = {
            "input_ids": segments.ids_of(ids),
            "attention_mask": mask,
            "token_type_ids": segments.types_of(ids),
        }
        yield rows, {name: inputs[name] for name in subject.inputs}


def _logits(path: Path, subject: Subject, texts: Sequence[str], size: int = 16) -> tuple[Floats, float]:
    """A graph's logits, shape (texts, classes), and texts a second."""
    session = session_of(path)
    result = np.zeros((len(texts), len(subject.saved.label_names)), np.float32)
    seconds = 0.0
    for rows, batch in _batches(subject, texts, size):
        started = time.perf_counter()
        result[rows] = session.run(["logits"], dict(batch))[0]
        seconds += time.perf_counter() - started
    return result, len(texts) / seconds
