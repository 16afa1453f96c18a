"""The precision int8: its weights, and the self-test that every model must pass when it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tiny_model import HIDDEN, random_weights, write_safetensors, write_tiny_model

from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import Cause, RuntimeFailed
from hubgate.runtime.machine import multiplies_int8
from hubgate.runtime.model.compiled import CompiledModel
from hubgate.runtime.model.graph import Node, number, openvino, ops
from hubgate.runtime.model.int8 import GROUP, quantize_linear_layers
from hubgate.runtime.model.selftest import INT8_COSINE, SAME_SCORE, encode_samples
from hubgate.runtime.model.spec import read_model_spec

if TYPE_CHECKING:
    from tiny_model import Array

DATA = Path(__file__).parents[2] / "data"
INPUTS, OUTPUTS = 2 * GROUP, 5


def linear(weights: Array, *, flipped: bool, half: bool) -> Node:
    """A graph of one linear layer, as from weights, or as in ONNX files: transposed, or in f16."""
    inputs = ops.parameter([-1, weights.shape[1]], np.float32)
    stored = ops.constant(np.ascontiguousarray(weights.T if flipped else weights, "f2" if half else "f4"))
    factor = ops.convert(stored, np.float32) if half else stored
    product = ops.matmul(inputs, factor, False, not flipped)
    return openvino.Model([ops.result(ops.add(product, number(1)))], [inputs], "linear")


def stored_weights(graph: Node) -> Array:
    """The weights that a quantized graph multiplies with."""
    nodes = {node.get_type_name(): node for node in graph.get_ordered_ops()}
    scaled = nodes["Reshape"].input_value(0).get_node()
    integers, scales = (scaled.input_value(port).get_node() for port in (0, 1))
    data = integers.input_value(0).get_node().data
    assert data.dtype == np.int8
    return np.asarray(data * scales.data).reshape(nodes["Reshape"].get_output_shape(0))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_weights_are_rounded_to_255_steps_of_each_group(*, flipped: bool, half: bool) -> None:
    weights = np.random.default_rng(1).normal(0, 1, (OUTPUTS, INPUTS)).astype("f2").astype("f4")
    weights[0, :GROUP] *= 100
    weights[1, :GROUP] = 0
    graph = quantize_linear_layers(linear(weights, flipped=flipped, half=half))
    steps = np.abs(weights.reshape(OUTPUTS, -1, GROUP)).max(axis=2).repeat(GROUP, axis=1) / 127
    assert (np.abs(stored_weights(graph) - weights) <= 0.501 * steps).all()
    assert list(graph.output(0).get_partial_shape())[1].get_length() == OUTPUTS


@pytest.mark.parametrize("shape", [(OUTPUTS, GROUP + 1), (1, GROUP)])
def test_graph_without_layer_to_quantize_is_rejected(shape: tuple[int, int]) -> None:
    graph = linear(np.ones(shape, np.float32), flipped=False, half=False)
    with pytest.raises(RuntimeFailed, match="no linear layer with float weights in groups of 32") as failed:
        quantize_linear_layers(graph)
    assert "precision f32" in failed.value.remedy


@pytest.mark.parametrize("name", ["tiny_models/mpnet", "tiny_models/ranker-xlm-roberta"])
def test_models_of_every_format_stay_close_to_f32(name: str) -> None:
    spec = read_model_spec(DATA / name)
    exact, small = (CompiledModel(spec, precision) for precision in (Precision.F32, Precision.INT8))
    rows = encode_samples(exact.tokens, spec)
    one, other = (model.lanes[0].run(rows)[-1] for model in (exact, small))
    assert 0 < np.abs(one - other).max() < 0.1
    assert exact.self_test is None
    assert small.self_test is not None
    assert small.self_test >= INT8_COSINE if spec.width > 1 else 0 < small.self_test <= SAME_SCORE


def test_reranker_with_a_language_model_runs_in_int8() -> None:
    spec = read_model_spec(DATA / "tiny_rerankers" / "Qwen3-Reranker-tiny")
    model = CompiledModel(spec, Precision.INT8)
    assert model.precision == "int8"
    assert model.self_test is not None
    assert 0 < model.self_test <= SAME_SCORE


def test_model_that_loses_too_much_is_refused_with_its_figure(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    weights = random_weights()
    for name, tensor in weights.items():
        if "LayerNorm" in name:
            tensor[0] = 0  # so the first input of every layer is 0, and a huge weight changes nothing in f32
        elif tensor.shape[-1] == HIDDEN and tensor.ndim == 2 and "encoder" in name:
            tensor[:, 0] = 1000
    write_safetensors(tmp_path / "model.safetensors", weights)
    spec = read_model_spec(tmp_path)
    CompiledModel(spec)
    with pytest.raises(
        RuntimeFailed, match=r"to those of f32 is -?0\.\d+, and at least 0.999 is required"
    ) as failed:
        CompiledModel(spec, Precision.INT8)
    assert failed.value.cause is Cause.MODEL_UNUSABLE
    assert "precision f32" in failed.value.remedy


@pytest.mark.parametrize(
    ("flags", "found"), [("avx512f avx512_vnni", True), ("avx2 avx_vnni", True), ("avx2 vnni512", False)]
)
def test_processor_is_asked_for_vnni(tmp_path: Path, flags: str, *, found: bool) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"flags\t\t: fpu {flags} sse\n")
    assert multiplies_int8(info) is found
    assert not multiplies_int8(tmp_path / "none")
