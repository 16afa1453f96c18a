"""Precision `int8`: the weights of linear layers as 8-bit integers, with one scale for each group of weights.

OpenVINO quantizes the inputs of these layers at run time, in groups of the same size, if the processor multiplies 8-bit
integers (AVX512-VNNI or AVX-VNNI). On other processors it converts the weights back, and computes in f32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hubgate.domain.errors import Cause, RuntimeFailed
from hubgate.runtime.model.graph import Node, openvino, ops

GROUP = 32
"""Weights per scale. Larger groups are faster and less accurate."""
OPTIONS = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP}
_LARGEST = 127

Array = np.ndarray[Any, Any]


def quantize_linear_layers(graph: Node) -> Node:
    """A copy of a graph whose linear layers have 8-bit weights.

    Raises:
        RuntimeFailed: it has no linear layer with float weights whose inputs are a multiple of `GROUP`.
    """
    copy = graph.clone()
    layers = [
        (node, weights)
        for node in copy.get_ordered_ops()
        if node.get_type_name() == "MatMul" and (weights := _weights(node)) is not None
    ]
    if not layers:
        raise RuntimeFailed(
            f"The precision is int8, and the model has no linear layer with float weights in groups of {GROUP}.",
            remedy="Its weights may be quantized already. Register the endpoint with the precision f32.",
            cause=Cause.MODEL_UNUSABLE,
        )
    for node, weights in layers:
        flipped = node.get_attributes()["transpose_a"]
        quantized = ops.matmul(node.input_value(0), _quantized(weights), flipped, True)
        node.output(0).replace(quantized.output(0))
    copy.validate_nodes_and_infer_types()
    return copy


def _weights(node: Node) -> Array | None:
    """The weights of a linear layer, `[outputs, inputs]`; `None` if it is another product, or stays as it is."""
    source = node.input_value(1).get_node()
    if source.get_type_name() == "Convert":  # from f16
        source = source.input_value(0).get_node()
    if source.get_type_name() != "Constant" or source.get_element_type() not in (
        openvino.Type.f32,
        openvino.Type.f16,
    ):
        return None
    weights = np.asarray(source.data, np.float32)
    if not node.get_attributes()["transpose_b"]:
        weights = weights.T
    # The head of a reranker is one row, which costs nothing and decides everything.
    return weights if weights.ndim == 2 and weights.shape[1] % GROUP == 0 and len(weights) > 1 else None


def _quantized(weights: Array) -> Node:
    """The weights as a constant that OpenVINO keeps in 8 bits: integers, converted and scaled group by group."""
    groups = weights.reshape(len(weights), -1, GROUP)
    scales = np.abs(groups).max(axis=2, keepdims=True) / np.float32(_LARGEST)
    scales[scales == 0] = 1
    integers = np.rint(groups / scales).astype(np.int8)
    scaled = ops.multiply(ops.convert(ops.constant(integers), np.float32), ops.constant(scales))
    return ops.reshape(scaled, list(weights.shape), False)
