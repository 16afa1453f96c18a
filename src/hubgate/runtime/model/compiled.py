"""A loaded model: token ids to vectors or scores. Used in the worker process only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import RuntimeFailed
from hubgate.runtime.batching import padded_length
from hubgate.runtime.machine import CpuShare
from hubgate.runtime.model.bert import build_bert
from hubgate.runtime.model.causal import with_score
from hubgate.runtime.model.files import unusable
from hubgate.runtime.model.graph import (
    BEAMS,
    IDS,
    KINDS,
    MASK,
    PAST,
    POSITIONS,
    Node,
    openvino,
    read_graph,
    with_head,
)
from hubgate.runtime.model.heads import RankingHead
from hubgate.runtime.model.int8 import OPTIONS as INT8_OPTIONS
from hubgate.runtime.model.int8 import quantize_linear_layers
from hubgate.runtime.model.selftest import choose_precision, encode_samples, find_fault
from hubgate.runtime.model.spec import ModelSpec
from hubgate.runtime.model.tokenizer import ModelInput, ModelTokenizer

Array = np.ndarray[Any, Any]


class CompiledModel:
    """A compiled model on the CPU, with its tokenizer.

    Raises:
        RuntimeFailed: the files of the folder do not match, or the model fails its self-test.
    """

    def __init__(
        self, spec: ModelSpec, precision: Precision = Precision.F32, share: CpuShare | None = None
    ) -> None:
        try:
            self._load(spec, precision, share)
        except (RuntimeFailed, KeyboardInterrupt, SystemExit):
            raise
        # Libraries fail in their own ways, and a Rust panic is not an Exception.
        except BaseException as error:
            raise unusable(spec.folder, f"it cannot be loaded ({type(error).__name__}: {error})") from error

    def _load(self, spec: ModelSpec, precision: Precision, share: CpuShare | None) -> None:
        self.tokens = ModelTokenizer(spec)
        graph = _graph(spec, self.tokens)
        core, share = openvino.Core(), (share or CpuShare()).resolve()
        known = encode_samples(self.tokens, spec)

        def load(kind: Precision) -> list[Lane]:
            wanted = quantize_linear_layers(graph) if kind is Precision.INT8 else graph
            return _lanes(core, wanted, spec, kind, share)

        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        chosen = choose_precision(precision, load, spec, known, has_bf16=has_bf16)
        self.precision, self.lanes, self.self_test = chosen
        if reason := find_fault(self.lanes[0], spec, known):
            raise reason


class Lane:
    """Runs one batch at a time, in one thread."""

    def __init__(self, compiled: Node, spec: ModelSpec) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = [(port.any_name, port.get_element_type().to_dtype()) for port in compiled.inputs]
        self._past = {
            port.any_name: [axis.get_length() if axis.is_static else 0 for axis in port.get_partial_shape()]
            for port in compiled.inputs
            if port.any_name.startswith(PAST)
        }
        self._keeps_cache = bool(self._request.query_state())  # language models do, for generation
        self._outputs = len(compiled.outputs)
        self._max_tokens = spec.max_tokens
        self._pad = spec.pad

    def run(self, rows: Sequence[ModelInput]) -> list[Array]:
        """Run a batch. The outputs are `[texts, width]` in f32: pooled and normalized vectors, or scores."""
        lengths = np.array([len(row.ids) for row in rows])
        # There may be no positions beyond the model's maximum.
        longest = min(padded_length(int(lengths.max())), self._max_tokens)
        mask = np.arange(longest) < lengths[:, None]
        filled = {MASK: mask, IDS: np.full(mask.shape, self._pad), KINDS: np.zeros(mask.shape, np.int64)}
        filled[IDS][mask] = np.concatenate([np.asarray(row.ids) for row in rows])
        if rows[0].kinds is not None:
            filled[KINDS][mask] = np.concatenate([np.asarray(row.kinds) for row in rows])
        filled[POSITIONS] = np.broadcast_to(np.arange(longest), mask.shape)
        filled[BEAMS] = np.arange(len(rows))
        for name, shape in self._past.items():
            filled[name] = np.empty([len(rows), *shape[1:]])
        if self._keeps_cache:
            self._request.reset_state()
        self._request.infer([filled[name].astype(kind) for name, kind in self._inputs])
        return [self._request.get_output_tensor(n).data.copy() for n in range(self._outputs)]


def _graph(spec: ModelSpec, tokens: ModelTokenizer) -> Node:
    shape, head = spec.shape, spec.head
    encoder = read_graph(spec) if shape is None else build_bert(spec, shape, tokens.vocabulary)
    if isinstance(head, RankingHead) and head.causal and head.template is not None:
        encoder = with_score(encoder, head.template, tokens, spec.folder)
    return with_head(encoder, spec)


def _lanes(core: Node, graph: Node, spec: ModelSpec, precision: Precision, share: CpuShare) -> list[Lane]:
    options = {
        # OpenVINO's default is bf16 where the CPU has it.
        "INFERENCE_PRECISION_HINT": str(Precision.F32 if precision is Precision.INT8 else precision),
        "NUM_STREAMS": share.lanes,
        "INFERENCE_NUM_THREADS": share.threads,
        # A second worker would be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
        **(INT8_OPTIONS if precision is Precision.INT8 else {}),
    }
    compiled = core.compile_model(graph, "CPU", options)
    return [Lane(compiled, spec) for _ in range(share.lanes)]
