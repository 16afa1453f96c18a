"""The graph that a worker runs: an encoder, built from weights or read from ONNX, and its head.

Its inputs have the names of ONNX exports: `input_ids`, `attention_mask` (1 for each token) and, if there are segments,
`token_type_ids`; each `[texts, tokens]`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubgate.runtime.model.files import unusable
from hubgate.runtime.model.heads import EmbeddingHead, Pooling, RankingHead
from hubgate.runtime.model.spec import ModelSpec

# `import openvino` imports `openvino_telemetry`, which reports usage to an analytics host. `None` in `sys.modules`
# makes that import fail, and OpenVINO falls back to a stub. This is the only module that imports OpenVINO.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402 - only after the line above
from openvino import opset13 as ops  # noqa: E402

__all__ = [
    "BEAMS",
    "IDS",
    "KINDS",
    "MASK",
    "PAST",
    "POSITIONS",
    "Encoder",
    "Node",
    "number",
    "openvino",
    "ops",
    "read_graph",
    "unsqueeze",
    "with_head",
]

Node = Any
"""A value of the graph. OpenVINO has no types."""
IDS, MASK, KINDS = "input_ids", "attention_mask", "token_type_ids"
POSITIONS, BEAMS, PAST = "position_ids", "beam_idx", "past_key_values."
"""Of language models: exports for generation need them, although a score needs no cache."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A graph without its head: token vectors `[texts, tokens, hidden]`, or a cross-encoder's scores `[texts, 1]`."""

    output: Node
    inputs: Sequence[Node]
    mask: Node
    """In f32."""
    sinks: Sequence[Node] = ()
    """Where a language model stores its cache."""


def with_head(encoder: Encoder, spec: ModelSpec) -> Node:
    """The whole graph. Its outputs are the pooled and the normalized vectors, both `[texts, hidden]`, or the scores."""
    outputs = [encoder.output]
    if isinstance(spec.head, EmbeddingHead):
        pooled = _pool(encoder.output, encoder.mask, spec.head.pooling)
        length = ops.sqrt(ops.reduce_sum(ops.multiply(pooled, pooled), [1], keep_dims=True))
        outputs = [pooled, ops.divide(pooled, ops.maximum(length, number(1e-12)))]
    results = [ops.result(output) for output in outputs]
    return openvino.Model(results, list(encoder.sinks), list(encoder.inputs), "encoder")


def read_graph(spec: ModelSpec) -> Encoder:
    """Read the encoder, or the language model, of a file in ONNX or OpenVINO's format.

    Raises:
        RuntimeFailed: it cannot be read, or does not match the other files of the folder.
    """
    try:
        model = openvino.Core().read_model(str(spec.weights))
        inputs = {port.any_name: port.get_node() for port in model.inputs}
    except (RuntimeError, ValueError) as error:  # the latter if a name is not UTF-8
        raise unusable(spec.folder, f"{spec.weights.name} is not a complete ONNX or OpenVINO file") from error
    head = spec.head
    causal = isinstance(head, RankingHead) and head.causal
    known = {IDS, MASK, KINDS} | ({POSITIONS, BEAMS} if causal else set())
    others = {name for name in inputs if not (causal and name.startswith(PAST))} - known
    if unknown := sorted(others) or sorted({IDS, MASK} - set(inputs)):
        raise unusable(spec.folder, f"{spec.weights.name} takes other inputs ({', '.join(unknown)})")
    names = ("last_hidden_state", "token_embeddings") if isinstance(head, EmbeddingHead) else ("logits",)
    output = _output(spec, model, names, any_width=causal)
    mask = ops.convert(inputs[MASK], np.float32)
    return Encoder(output, model.get_parameters(), mask, model.get_sinks())


def _output(spec: ModelSpec, model: Node, names: tuple[str, ...], *, any_width: bool) -> Node:
    """The output with one of these names, whose width must match the other files of the folder."""
    for port in model.outputs:
        if not port.get_names().isdisjoint(names):
            width = port.get_partial_shape()[-1]
            if not any_width and width.is_static and width.get_length() != spec.width:
                raise unusable(
                    spec.folder,
                    f"{spec.weights.name} gives {width.get_length()} numbers, the other files say {spec.width}",
                )
            return port.get_node().input_value(0)
    raise unusable(spec.folder, f"{spec.weights.name} has no output named {names[0]}")


def number(value: float) -> Node:
    return ops.constant(np.float32(value))


def unsqueeze(value: Node, *axes: int) -> Node:
    """Insert axes of length 1."""
    return ops.unsqueeze(value, list(axes))


def _pool(hidden: Node, mask: Node, pooling: Pooling) -> Node:
    if pooling is Pooling.CLS:
        return ops.gather(hidden, ops.constant(np.int32(0)), 1)
    counted = ops.reduce_sum(ops.multiply(hidden, unsqueeze(mask, 2)), [1])
    return ops.divide(counted, ops.maximum(ops.reduce_sum(mask, [1], keep_dims=True), number(1e-9)))
