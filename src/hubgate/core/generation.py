"""The pipeline of calls that generate text, and streams that keep their slot until they are closed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from hubgate.core.errors import deadline_exceeded
from hubgate.core.queue.generation_queue import GenerationQueue, GenerationSlot
from hubgate.core.results import BYTES_PER_TOKEN, utf8_size
from hubgate.core.traffic.balancer import Balancer
from hubgate.core.traffic.circuit_breaker import CircuitBreaker
from hubgate.core.traffic.permits import sending_under
from hubgate.core.traffic.retry import Retrier
from hubgate.core.traffic.timers import TimeLimit, Timers
from hubgate.domain.calls import Complete, Generated, GenerationCall, WireFormat
from hubgate.domain.errors import UpstreamError
from hubgate.domain.ports import Clock, Events, TextGenerator

R = TypeVar("R")
T = TypeVar("T")


class GenerationPipeline:
    """Calls a model in fair order, within its rate limit, with retries and a circuit breaker.

    Args:
        generator: the model.
        queue: grants the slot of each call.
        retrier: of the model's server.
        breaker: of the model's server.
        default_timeout: seconds for a call without a deadline.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        generator: TextGenerator,
        *,
        queue: GenerationQueue,
        retrier: Retrier | Balancer,
        breaker: CircuitBreaker | Balancer,
        default_timeout: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self._generator = generator
        self._queue = queue
        self._retrier = retrier
        self._breaker = breaker
        self._default_timeout = default_timeout
        self._clock = clock
        self._timers = Timers(clock)

    def generate(self, call: GenerationCall) -> Coroutine[Any, Any, Generated]:
        """Generate the whole text.

        Raises:
            HubgateError: it cannot be generated.
        """
        return self._send(self._generator.generate, call, _end)

    def stream(self, call: GenerationCall) -> Coroutine[Any, Any, ManagedStream]:
        """Generate text as a stream. The deadline is that of its beginning.

        Raises:
            HubgateError: the stream cannot begin.
        """
        return self._send(self._generator.stream, call, _hold)

    async def _send(
        self,
        send: Callable[[GenerationCall], Awaitable[R]],
        call: GenerationCall,
        finish: Callable[[R, GenerationSlot], T],
    ) -> T:
        """Send a call. `finish` gets the model's answer and the slot, which it releases or keeps."""
        context = call.context
        caller, deadline = context.caller, context.deadline
        if agreement := self._breaker.check(caller):
            await agreement
        if deadline is None:
            deadline = self._clock() + self._default_timeout
        tokens = _prompt_tokens(call) if self._queue.counts_tokens else 1
        slot = self._queue.try_acquire(caller, tokens) or await self._queue.wait(context, tokens, deadline)
        started = self._clock()
        try:
            with sending_under(slot.permit), TimeLimit(self._timers, deadline):
                result = await self._retrier.run(send, call, tokens, deadline)
        except BaseException as error:
            slot.release()
            if isinstance(error, UpstreamError):
                self._breaker.failed(error, caller)
            elif isinstance(error, TimeoutError):
                raise deadline_exceeded(self._clock() - started, in_queue=False) from None
            raise
        self._breaker.succeeded()
        return finish(result, slot)


class ManagedStream:
    """Events that release a resource when they are closed. `waited` is the seconds in the queue."""

    def __init__(self, events: Events, release: Callable[[], None], *, waited: float = 0.0) -> None:
        self._events = events
        self._release: Callable[[], None] | None = release
        self.waited = waited

    @property
    def wire_format(self) -> WireFormat:
        return self._events.wire_format

    def __aiter__(self) -> AsyncIterator[Sequence[bytes]]:
        """The payloads, as they arrive."""
        return aiter(self._events)

    async def aclose(self) -> None:
        """Close the events and release the resource, once."""
        release, self._release = self._release, None
        if release is not None:
            try:
                await self._events.aclose()
            finally:
                release()


def _end(generated: Generated, slot: GenerationSlot) -> Generated:
    slot.release()
    return replace(generated, waited=slot.waited) if slot.waited else generated


def _hold(events: Events, slot: GenerationSlot) -> ManagedStream:
    return ManagedStream(events, slot.release, waited=slot.waited)


def _prompt_tokens(call: GenerationCall) -> int:
    """An estimate; the tokens that the model will generate are unknown."""
    size = sum(map(len, call.fields.values()))
    if isinstance(call, Complete):
        size += utf8_size(call.prompt)
    return size // BYTES_PER_TOKEN + 1
