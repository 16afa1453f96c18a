"""A worker process's loop for a model that generates text.

One thread reads requests and encodes their prompts; another runs the model, step by step. All running texts advance
together, and between two steps calls join in the order of `runtime.order`, and those of callers that left are dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Protocol

from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import InvalidRequest, RuntimeFailed
from hubgate.runtime.generation.causal import CausalEngine
from hubgate.runtime.generation.prompts import PromptEncoder, check_template
from hubgate.runtime.generation.sampling import Plan, make_plan
from hubgate.runtime.generation.spec import GenerationSpec, export_remedy
from hubgate.runtime.generation.text import TextBuilder
from hubgate.runtime.generation.text2text import Text2TextEngine
from hubgate.runtime.machine import CpuShare, available_memory
from hubgate.runtime.order import CallInfo, TurnOrder
from hubgate.runtime.protocol import (
    CancelCall,
    Failed,
    GenerateText,
    Ready,
    Replies,
    Reply,
    TextPiece,
    TextRequest,
    encode_frame,
    read_request,
)

DEFAULT_LANES = 8
"""Texts that are generated at once. Each further one takes little more time, and memory for its tokens."""
_MEMORY_SHARE = 4
"""Running texts may take a quarter of the memory that is free when the model is loaded."""
_SAMPLE = "Hello"


class Engine(Protocol):
    """Runs the model: see `causal.CausalEngine`."""

    precision: Precision

    @property
    def busy(self) -> bool: ...

    def start(self, call: int, ids: Sequence[int], plan: Plan) -> None: ...

    def cancel(self, call: int) -> None: ...

    def step(self) -> Iterator[tuple[int, list[int], str | None]]: ...


@dataclass(slots=True)
class _Job:
    """One text to generate."""

    info: CallInfo
    ids: list[int]
    plan: Plan
    text: TextBuilder
    tokens: int = 0
    """Generated so far."""

    @property
    def room(self) -> int:
        """The tokens that it may have at most, with its prompt."""
        return len(self.ids) + self.plan.max_new_tokens

    def advance(self, ids: Sequence[int], reason: str | None) -> TextPiece | None:
        """The piece for new tokens, if there is any new text or it is the last one."""
        self.tokens += len(ids)
        text = self.text.add(ids)
        if reason is not None and self.text.stop is None:
            text += self.text.end()
        if self.text.stop is not None:
            reason = "stop"
        if not text and reason is None:
            return None
        return TextPiece(self.info.call, text, len(self.ids), self.tokens, reason, self.text.stop)


class GenerationWorker:
    """Serves requests with one model until its input ends.

    Args:
        spec: of the model.
        precision: see `CausalEngine`.
        share: of the machine; its lanes are the texts that are generated at once.
        replies: where to write.

    Raises:
        RuntimeFailed: the model cannot be loaded.
    """

    def __init__(self, spec: GenerationSpec, precision: Precision, share: CpuShare, replies: Replies) -> None:
        lanes = share.lanes or DEFAULT_LANES
        self._budget = _token_budget(spec, lanes)
        limit = self._budget if spec.text2text is None else self._budget // 2
        self._spec = replace(spec, max_tokens=min(spec.max_tokens, limit))
        self._lanes = lanes
        with export_remedy():
            self._prompts = PromptEncoder(self._spec)
            if spec.template is not None:
                check_template(self._prompts)
            sample = self._prompts.encode(GenerateText(0, _SAMPLE))
            self._engine = _load(self._spec, precision, share.resolve(), sample)
        self._replies = replies
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        """Guards what follows."""
        self._waiting: dict[int, _Job] = {}
        self._order = TurnOrder()
        self._next: int | None = None
        """The call that runs next, while the model has no room for it."""
        self._cancelled: set[int] = set()
        self._ended = False
        self._failure: BaseException | None = None
        self._running: dict[int, _Job] = {}
        """Only used by the thread that runs the model."""

    def serve(self, requests: BinaryIO) -> None:
        """Serve until the requests end. An unexpected failure ends the process, not only a call."""
        self._reply(Ready(0, self._engine.precision, self._spec.max_tokens))
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        while self._admit():
            for call, ids, reason in self._engine.step():
                self._advance(call, ids, reason)
        if self._failure is not None:
            raise self._failure

    def _reply(self, message: Reply) -> None:
        with self._writing:
            self._replies.write(encode_frame(message))
            self._replies.flush()

    def _read(self, requests: BinaryIO) -> None:
        try:
            while (request := read_request(requests)) is not None:
                try:
                    self._accept(request)
                except (InvalidRequest, RuntimeFailed) as error:
                    self._reply(Failed.of(request.call, error))
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which raises it
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _accept(self, request: TextRequest | GenerateText | CancelCall) -> None:
        if isinstance(request, CancelCall):
            with self._changed:
                self._forget(request.call)
                self._cancelled.add(request.call)
            return
        if not isinstance(request, GenerateText):
            raise InvalidRequest(
                "The model generates text, and does nothing else.", remedy="Use an endpoint of another task."
            )
        ids = self._prompts.encode(request)
        plan = make_plan(request, self._spec, len(ids))
        info = CallInfo(request.call, request.caller, request.bulk)
        stops = (*request.options.stop, *self._spec.defaults.stop)
        text = TextBuilder(self._prompts.tokenizer, stops)
        with self._changed:
            self._waiting[request.call] = _Job(info, ids, plan, text)
            self._order.add(info)
            self._changed.notify()

    def _forget(self, call: int) -> None:
        self._waiting.pop(call, None)
        self._order.remove(call)
        if self._next == call:
            self._next = None

    def _admit(self) -> bool:
        """Start the waiting calls that there is room for, and stop the cancelled ones. False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended or self._engine.busy)
            if self._ended:
                return False
            cancelled, self._cancelled = self._cancelled, set()
            for call in cancelled & self._running.keys():
                del self._running[call]
                self._engine.cancel(call)
            while (job := self._take()) is not None:
                self._start(job)
        return True

    def _start(self, job: _Job) -> None:
        call = job.info.call
        try:
            self._engine.start(call, job.ids, job.plan)
        except InvalidRequest as error:
            self._reply(Failed.of(call, error))
        else:
            self._running[call] = job

    def _take(self) -> _Job | None:
        if self._next is None:
            self._next = next(iter(self._order.take_turn()), None)
        if self._next is None or len(self._running) >= self._lanes:
            return None
        job = self._waiting[self._next]
        if job.room + sum(one.room for one in self._running.values()) > self._budget:
            return None
        self._forget(self._next)
        return job

    def _advance(self, call: int, ids: Sequence[int], reason: str | None) -> None:
        job = self._running[call]
        piece = job.advance(ids, reason)
        if piece is None:
            return
        if piece.finish_reason is not None:
            del self._running[call]
            if reason is None:  # at a stop sequence, which the engine does not know
                self._engine.cancel(call)
        self._reply(piece)


def _load(spec: GenerationSpec, precision: Precision, share: CpuShare, sample: Sequence[int]) -> Engine:
    if spec.text2text is None:
        return CausalEngine(spec, precision, share, sample)
    return Text2TextEngine(spec, spec.text2text, precision, share, sample)


def _token_budget(spec: GenerationSpec, lanes: int) -> int:
    """The maximum tokens of all running texts together."""
    budget = lanes * spec.max_tokens * (1 if spec.text2text is None else 2)
    memory = available_memory()
    if memory is not None and spec.token_bytes is not None:
        free = max(0, memory - spec.weights.stat().st_size)
        budget = min(budget, free // _MEMORY_SHARE // spec.token_bytes)
    if budget < 2:
        raise RuntimeFailed(
            "This machine has too little free memory for the model.", remedy="Use a smaller model."
        )
    return budget
