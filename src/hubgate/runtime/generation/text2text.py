"""Encoder-decoder models (T5, BART) on OpenVINO. Running texts take turns, one token each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import RuntimeFailed
from hubgate.runtime.generation.beams import BeamSearch
from hubgate.runtime.generation.sampling import Plan
from hubgate.runtime.generation.scores import apply_rules, choose, log_softmax
from hubgate.runtime.generation.spec import EXPORT_REMEDY, GenerationSpec, Text2TextSpec
from hubgate.runtime.machine import CpuShare
from hubgate.runtime.model.files import unusable
from hubgate.runtime.model.graph import openvino
from hubgate.runtime.model.selftest import need_bf16

Array = np.ndarray[Any, Any]
_INPUTS = {"input_ids", "encoder_hidden_states", "encoder_attention_mask", "beam_idx"}


class Text2TextEngine:
    """A loaded model. Used by one thread.

    Args:
        spec: of the model.
        rules: of its texts.
        precision: `auto` is bf16 if the processor has it and a sample starts with the same token.
        share: of the machine.
        sample: a prompt for the self-test.

    Raises:
        RuntimeFailed: it cannot be loaded, or fails its self-test.
    """

    def __init__(
        self,
        spec: GenerationSpec,
        rules: Text2TextSpec,
        precision: Precision,
        share: CpuShare,
        sample: Sequence[int],
    ) -> None:
        self._spec = spec
        self._rules = rules
        self._share = share
        self._ends = sorted(spec.ends)
        self._running: dict[int, _Text] = {}
        self._free: list[Any] = []
        """Requests of the decoder that no text uses."""
        core = openvino.Core()
        has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        need_bf16(precision, has_bf16=has_bf16)
        self.precision: Precision = Precision.F32 if precision is Precision.AUTO else precision
        self._compile(core, self.precision)
        exact = self._test(sample)
        if precision is Precision.AUTO and has_bf16:
            self._compile(core, Precision.BF16)
            if self._test(sample) == exact:
                self.precision = Precision.BF16
            else:
                self._compile(core, Precision.F32)

    @property
    def busy(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._running)

    def start(self, call: int, ids: Sequence[int], plan: Plan) -> None:
        """Start generating a text."""
        self._running[call] = _Text(ids, plan, self._rules, self._ends)

    def cancel(self, call: int) -> None:
        """Stop generating a text."""
        text = self._running.pop(call, None)
        if text is not None and text.request is not None:
            self._free.append(text.request)

    def step(self) -> Iterator[tuple[int, list[int], str | None]]:
        """Generate one more token of each text. With beam search, all tokens come at the end.

        Yields the call, its new tokens, and OpenAI's finish reason at its end.
        """
        for call, text in list(self._running.items()):
            if text.request is None:
                text.begin(self._encode(text.prompt), self._free.pop() if self._free else self._new_request())
            ids, reason = text.advance()
            if reason is not None:
                self.cancel(call)
            if ids or reason is not None:
                yield call, ids, reason

    def _compile(self, core: Any, precision: Precision) -> None:
        options = {
            "INFERENCE_PRECISION_HINT": str(precision),
            "INFERENCE_NUM_THREADS": self._share.threads,
            "ENABLE_CPU_PINNING": False,
        }
        self._free.clear()
        try:
            encoder, self._decoder = (
                core.compile_model(str(graph), "CPU", options) for graph in self._rules.graphs
            )
        except RuntimeError as error:
            raise unusable(self._spec.folder, "OpenVINO cannot load its graphs") from error
        found = {port.any_name for port in self._decoder.inputs}
        if found != _INPUTS:
            raise RuntimeFailed(
                f"The decoder in {self._spec.folder} takes other inputs ({', '.join(sorted(found ^ _INPUTS))}).",
                remedy=EXPORT_REMEDY,
            )
        self._encoder = encoder.create_infer_request()

    def _new_request(self) -> Any:
        return self._decoder.create_infer_request()

    def _encode(self, ids: Sequence[int]) -> Array:
        inputs = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
        self._encoder.infer(inputs)
        return np.array(self._encoder.get_output_tensor(0).data)

    def _test(self, sample: Sequence[int]) -> int:
        request = self._new_request()
        logits = _decode(request, self._encode(sample), [self._rules.start], [0])[0]
        self._free.append(request)
        if not np.isfinite(logits).all():
            raise unusable(self._spec.folder, "it returns values that are not finite (NaN or infinite)")
        return int(logits.argmax())


class _Text:
    """One text that is generated."""

    def __init__(self, prompt: Sequence[int], plan: Plan, rules: Text2TextSpec, ends: Sequence[int]) -> None:
        self.prompt = prompt
        self.request: Any = None
        self._plan = plan
        self._rules = rules
        self._ends = ends
        self._rng = np.random.default_rng(plan.seed)
        searches = rules.beams > 1 and not plan.sample
        self._search = BeamSearch(rules, ends, plan.max_new_tokens) if searches else None
        self._ids = [rules.start]
        self._sources = [0] * (rules.beams if searches else 1)

    def begin(self, hidden: Array, request: Any) -> None:
        """Take the encoded prompt, and a request of the decoder."""
        request.reset_state()
        self._hidden = np.repeat(hidden, len(self._sources), axis=0)
        self.request = request

    def advance(self) -> tuple[list[int], str | None]:
        """Generate one more token. Returns the new tokens that are certain, and the reason of the end."""
        return self._advance_one() if self._search is None else self._advance_beams(self._search)

    def _advance_one(self) -> tuple[list[int], str | None]:
        logits = _decode(self.request, self._hidden, self._ids[-1:], self._sources)[0]
        token = choose(self._apply_rules(logits.astype(np.float64), self._ids), self._plan, self._rng)
        self._ids.append(token)
        if token in self._ends:
            return [token], "stop"
        return [token], "length" if len(self._ids) > self._plan.max_new_tokens else None

    def _advance_beams(self, search: BeamSearch) -> tuple[list[int], str | None]:
        last = [ids[-1] for ids in search.beams]
        scores = log_softmax(_decode(self.request, self._hidden, last, self._sources))
        self._sources = search.advance(lambda beam, ids: self._apply_rules(scores[beam], ids))
        if not search.done and len(search.beams[0]) <= self._plan.max_new_tokens:
            return [], None
        ids = search.best()
        return ids, "stop" if ids[-1] in self._ends else "length"

    def _apply_rules(self, scores: Array, ids: Sequence[int]) -> Array:
        return apply_rules(scores, ids, self._plan, self._rules, self._ends, prompt=self.prompt)


def _decode(request: Any, hidden: Array, last: Sequence[int], sources: Sequence[int]) -> Array:
    """The logits after each text's last token, `[texts, vocabulary]`. The request keeps what it has read before.

    `sources` is which of the texts before each one continues.
    """
    request.infer(
        {
            "input_ids": np.array(last, np.int64)[:, None],
            "encoder_hidden_states": hidden,
            "encoder_attention_mask": np.ones(hidden.shape[:2], np.int64),
            "beam_idx": np.array(sources, np.int32),
        }
    )
    return np.array(request.get_output_tensor(0).data[:, -1])
