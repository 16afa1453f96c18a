"""The way to a model that writes: patience, a turn, tries; and streams that keep what they hold until they end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from hubgate.core.errors import deadline_exceeded
from hubgate.core.queue.generation_queue import GenerationQueue
from hubgate.core.results import BYTES_PER_TOKEN, utf8_size
from hubgate.core.traffic.circuit_breaker import CircuitBreaker
from hubgate.core.traffic.rate_limiter import sending_under
from hubgate.core.traffic.retry import Retrier
from hubgate.domain.calls import Complete, Generated, GenerationCall, WireFormat
from hubgate.domain.ports import Clock, Events, TextGenerator

R = TypeVar("R")


class GenerationPipeline:
    """Calls a writer in fair order, within its rate limit, and again where that may help.

    Args:
        writer: the model.
        turns: the queue before it.
        retries: what is asked again.
        breaker: what leaves it in peace.
        patience: seconds a call may take when its caller names no deadline.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        writer: TextGenerator,
        *,
        turns: GenerationQueue,
        retries: Retrier,
        breaker: CircuitBreaker,
        patience: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self._writer = writer
        self._turns = turns
        self._retries = retries
        self._breaker = breaker
        self._patience = patience
        self._clock = clock

    async def generate(self, call: GenerationCall) -> Generated:
        """Answer one call with all of the text.

        Raises:
            HubgateError: it cannot be answered.
        """
        tokens, deadline = self._begin(call)
        turn = await self._turns.take(call.context, tokens, deadline)
        try:
            with sending_under(turn.permit):
                written = await self._ask(self._writer.generate, call, tokens, deadline)
        finally:
            turn.end()
        return replace(written, waited=turn.waited) if turn.waited else written

    async def stream(self, call: GenerationCall) -> ManagedStream:
        """Answer one call while the text is being made. The deadline is that of its beginning.

        Raises:
            HubgateError: it cannot be answered.
        """
        tokens, deadline = self._begin(call)
        turn = await self._turns.take(call.context, tokens, deadline)
        try:
            with sending_under(turn.permit):
                events = await self._ask(self._writer.stream, call, tokens, deadline)
        except BaseException:
            turn.end()
            raise
        return ManagedStream(events, turn.end, waited=turn.waited)

    def _begin(self, call: GenerationCall) -> tuple[int, float]:
        """The call's tokens and its deadline, if its model may be asked."""
        self._breaker.check(call.context.caller)
        deadline = call.context.deadline
        return _tokens(call), self._clock() + self._patience if deadline is None else deadline

    async def _ask(
        self,
        ask: Callable[[GenerationCall], Awaitable[R]],
        call: GenerationCall,
        tokens: int,
        deadline: float,
    ) -> R:
        async def tried(call: GenerationCall) -> R:
            return await self._retries.ask(ask, call, tokens, deadline)

        began = self._clock()
        try:
            async with asyncio.timeout(deadline - began):
                return await self._breaker.watch(tried, call)
        except TimeoutError:
            raise deadline_exceeded(self._clock() - began, in_queue=False) from None


class ManagedStream:
    """Events that let go of something when they are closed. `waited` is the seconds before they began."""

    def __init__(self, events: Events, let_go: Callable[[], None], *, waited: float = 0.0) -> None:
        self._events = events
        self._let_go: Callable[[], None] | None = let_go
        self.waited = waited

    @property
    def wire_format(self) -> WireFormat:
        """How the payloads are written."""
        return self._events.wire_format

    def __aiter__(self) -> AsyncIterator[Sequence[bytes]]:
        """The payloads, as they arrive."""
        return aiter(self._events)

    async def aclose(self) -> None:
        """End it, and let go, once."""
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            try:
                await self._events.aclose()
            finally:
                let_go()


def _tokens(call: GenerationCall) -> int:
    """About how many tokens the model reads; what it will write nobody knows."""
    size = sum(map(len, call.fields.values()))
    if isinstance(call, Complete):
        size += utf8_size(call.prompt)
    return size // BYTES_PER_TOKEN + 1
