"""Decoder-only models on OpenVINO GenAI: all running texts advance together, by one token a step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import InvalidRequest, RuntimeFailed
from hubgate.runtime.generation.sampling import Plan
from hubgate.runtime.generation.spec import GenerationSpec
from hubgate.runtime.machine import CpuShare
from hubgate.runtime.model.files import unusable

# The module that blocks OpenVINO's telemetry comes first.
from hubgate.runtime.model.graph import openvino
from hubgate.runtime.model.selftest import need_bf16

import openvino_genai as genai  # isort: skip

_SAMPLE_TOKENS = 4
_ENDS = {genai.GenerationFinishReason.STOP: "stop", genai.GenerationFinishReason.LENGTH: "length"}


class CausalEngine:
    """A loaded model. Used by one thread.

    Args:
        spec: of the model.
        precision: `auto` is bf16 if the processor has it and it writes the same text for a sample.
        share: of the machine.
        sample: a prompt for the self-test.

    Raises:
        RuntimeFailed: it cannot be loaded, or fails its self-test.
    """

    def __init__(
        self, spec: GenerationSpec, precision: Precision, share: CpuShare, sample: Sequence[int]
    ) -> None:
        self._spec = spec
        self._share = share
        self._running: dict[int, Any] = {}
        has_bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        need_bf16(precision, has_bf16=has_bf16)
        self.precision: Precision = Precision.F32 if precision is Precision.AUTO else precision
        self._pipeline = self._load(self.precision)
        exact = self._test(sample)
        if precision is Precision.AUTO and has_bf16:
            slow, self._pipeline = self._pipeline, self._load(Precision.BF16)
            if self._test(sample) == exact:
                self.precision = Precision.BF16
            else:
                self._pipeline = slow

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._pipeline.has_non_finished_requests())

    def start(self, call: int, ids: Sequence[int], plan: Plan) -> None:
        """Start generating a text.

        Raises:
            InvalidRequest: an option has a value that OpenVINO refuses.
        """
        tensor = openvino.Tensor(np.array([ids], np.int64))
        self._running[call] = self._pipeline.add_request(call, tensor, self._config(plan))

    def cancel(self, call: int) -> None:
        """Stop generating a text."""
        handle = self._running.pop(call, None)
        if handle is not None:
            handle.cancel()

    def step(self) -> Iterator[tuple[int, list[int], str | None]]:
        """Generate up to one more token of each text.

        Yields the call, its new tokens, and OpenAI's finish reason at its end.
        """
        self._pipeline.step()
        for call, handle in list(self._running.items()):
            ids, reason = _read(handle)
            if reason is not None:
                del self._running[call]
            if ids or reason is not None:
                yield call, ids, reason

    def _load(self, precision: Precision) -> Any:
        options = {
            "INFERENCE_PRECISION_HINT": str(precision),
            # OpenVINO's default is 8 bits, which changes texts.
            "KV_CACHE_PRECISION": str(precision),
            "INFERENCE_NUM_THREADS": self._share.threads,
            "ENABLE_CPU_PINNING": False,
        }
        try:
            # By default the memory of the texts grows as needed.
            return genai.ContinuousBatchingPipeline(
                str(self._spec.folder), genai.SchedulerConfig(), "CPU", options
            )
        except RuntimeError as error:
            raise unusable(self._spec.folder, f"OpenVINO cannot load it ({_last_line(error)})") from error

    def _config(self, plan: Plan) -> Any:
        config = genai.GenerationConfig()
        config.max_new_tokens = plan.max_new_tokens
        config.min_new_tokens = plan.min_new_tokens
        config.stop_token_ids = set(self._spec.ends)
        config.repetition_penalty = plan.repetition_penalty
        config.presence_penalty = plan.presence_penalty
        config.frequency_penalty = plan.frequency_penalty
        config.do_sample = plan.sample
        if plan.sample:
            config.rng_seed = plan.seed
            config.temperature = plan.temperature
            config.top_p = plan.top_p
            config.min_p = plan.min_p
            if plan.top_k:
                config.top_k = plan.top_k
        try:
            config.validate()
        except RuntimeError as error:
            raise InvalidRequest(f"An option has no valid value: {_last_line(error)}") from error
        return config

    def _test(self, prompt: Sequence[int]) -> list[int]:
        """Generate a few tokens: they must be in the vocabulary, and their probabilities numbers."""
        config = genai.GenerationConfig()
        config.max_new_tokens = _SAMPLE_TOKENS
        config.logprobs = 1
        handle = self._pipeline.add_request(0, openvino.Tensor(np.array([prompt], np.int64)), config)
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        outputs = handle.read_all()
        ids = [token for output in outputs for token in output.generated_ids]
        chances = [chance for output in outputs for chance in output.generated_log_probs]
        if not ids or not all(math.isfinite(chance) for chance in chances):
            raise unusable(self._spec.folder, "it returns values that are not finite (NaN or infinite)")
        if not all(0 <= token < self._spec.vocabulary for token in ids):
            raise unusable(self._spec.folder, "it generates tokens that its vocabulary does not have")
        return ids


def _last_line(error: Exception) -> str:
    """The reason in an error of OpenVINO, which begins with the place in its source."""
    return (str(error).strip().splitlines() or ["unknown"])[-1]


def _read(handle: Any) -> tuple[list[int], str | None]:
    ids: list[int] = []
    reason = None
    while handle.can_read():
        for output in handle.read().values():  # one text a call
            ids += output.generated_ids
            reason = _ENDS.get(output.finish_reason, reason)
    if reason is None and handle.get_status() == genai.GenerationStatus.IGNORED:
        raise RuntimeFailed("OpenVINO ran out of memory for a text.", remedy="Use a smaller model.")
    return ids, reason
