"""The generation pipeline, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from virtual_time import now, run

from hubgate.core.generation import GenerationPipeline
from hubgate.core.queue.generation_queue import GenerationQueue
from hubgate.core.traffic.circuit_breaker import CircuitBreaker
from hubgate.core.traffic.concurrency import ConcurrencyLimit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.retry import Retrier
from hubgate.domain.calls import Chat, Complete, Context, Generated, Quota, WireFormat
from hubgate.domain.errors import Cause, DeadlineExceeded, HubgateError, UpstreamRefused, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from hubgate.domain.calls import GenerationCall

HELLO = Generated(body=b"{}", wire_format=WireFormat.OPENAI)


@dataclass
class OpenedStream:
    """An opened stream."""

    wire_format: WireFormat = WireFormat.OPENAI
    closed: int = 0

    async def __aiter__(self) -> AsyncIterator[Sequence[bytes]]:
        yield [b"one", b"two"]

    async def aclose(self) -> None:
        self.closed += 1


@dataclass
class Model:
    """Answers after `seconds`, or fails as `fault` says."""

    seconds: float = 1.0
    fault: Callable[[], HubgateError | None] = lambda: None
    written: Generated = HELLO
    calls: list[GenerationCall] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    streams: list[OpenedStream] = field(default_factory=list)
    busy: int = 0

    async def _work(self, call: GenerationCall) -> None:
        self.calls.append(call)
        self.times.append(now())
        self.busy += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.busy -= 1
        if error := self.fault():
            raise error

    async def generate(self, call: GenerationCall) -> Generated:
        await self._work(call)
        return self.written

    async def stream(self, call: GenerationCall) -> OpenedStream:
        await self._work(call)
        self.streams.append(OpenedStream())
        return self.streams[-1]

    async def close(self) -> None:
        pass


@dataclass
class Line:
    """A model behind the generation pipeline."""

    model: Model = field(default_factory=Model)
    requests_per_minute: int | None = None
    at_once: int = 4
    patient: bool = True

    def __post_init__(self) -> None:
        self.limiter = RateLimiter(self.requests_per_minute, clock=now)
        self.queue = GenerationQueue(
            self.limiter, places=ConcurrencyLimit(self.at_once, clock=now), clock=now
        )
        self.retrier = Retrier(self.limiter, patient=self.patient, clock=now, chance=lambda: 1.0)
        self.writing = GenerationPipeline(
            self.model,
            queue=self.queue,
            retrier=self.retrier,
            breaker=CircuitBreaker(clock=now),
            default_timeout=30.0,
            clock=now,
        )


def chat(deadline: float | None = None) -> Chat:
    return Chat(fields={"messages": b"[]"}, context=Context(deadline=deadline))


def failing(*errors: HubgateError | None) -> Callable[[], HubgateError | None]:
    left = list(errors)
    return lambda: left.pop(0) if left else None


def waking() -> HubgateError:
    return UpstreamRefused("It wakes.", status=503, cause=Cause.WAKING, retryable=True)


def test_result_reports_time_waited_for_a_slot() -> None:
    async def main() -> None:
        line = Line(at_once=1)
        first, second = await asyncio.gather(line.writing.generate(chat()), line.writing.generate(chat()))
        assert first == HELLO
        assert second.waited == pytest.approx(1.0)
        assert line.queue.requests == 2

    run(main())


def test_call_without_deadline_gets_the_default_timeout() -> None:
    async def main() -> None:
        line = Line(Model(seconds=100))
        with pytest.raises(DeadlineExceeded, match="while it waited for the model's server"):
            await line.writing.generate(Complete(prompt="once upon a time", fields={}))
        assert now() == pytest.approx(30.0)
        assert line.model.busy == line.queue.in_flight == 0

    run(main())


def test_retries_transient_errors() -> None:
    async def main() -> None:
        line = Line(Model(fault=failing(UpstreamUnreachable("It broke."))))
        assert await line.writing.generate(chat()) == HELLO
        assert line.model.times == pytest.approx([0, 2])

    run(main())


def test_quota_in_reply_delays_later_calls() -> None:
    async def main() -> None:
        quota = Quota(0, 10.0)
        line = Line(Model(written=Generated(body=b"{}", wire_format=WireFormat.OPENAI, quota=quota)))
        await line.writing.generate(chat())
        await line.writing.generate(chat())
        assert line.model.times == pytest.approx([0, 11], abs=0.01)

    run(main())


def test_stream_holds_its_slot_until_closed() -> None:
    async def main() -> None:
        line = Line(at_once=1)
        events = await line.writing.stream(chat())
        assert line.queue.in_flight == 1
        assert events.wire_format is WireFormat.OPENAI
        assert [part async for part in events] == [[b"one", b"two"]]
        await events.aclose()
        await events.aclose()
        assert (line.queue.in_flight, line.model.streams[0].closed) == (0, 1)

    run(main())


def test_failed_stream_releases_its_slot() -> None:
    async def main() -> None:
        refusal = UpstreamRefused("No.", status=422, cause=Cause.INPUT_REFUSED)
        line = Line(Model(fault=lambda: refusal))
        with pytest.raises(UpstreamRefused):
            await line.writing.stream(chat())
        assert line.queue.in_flight == 0

    run(main())


def test_cancelled_caller_ends_the_request_and_releases_its_slot() -> None:
    async def main() -> None:
        for ask in ("generate", "stream"):
            line = Line(Model(seconds=10))
            task = asyncio.create_task(getattr(line.writing, ask)(chat()))
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert line.model.busy == line.queue.in_flight == 0

    run(main())


class TestWaking:
    def test_one_call_wakes_the_server_while_others_wait(self) -> None:
        async def main() -> None:
            asleep_until = 20.0
            line = Line(Model(fault=lambda: waking() if now() < asleep_until else None))
            await asyncio.gather(*(line.writing.generate(chat()) for _ in range(4)))
            early = [at for at in line.model.times if at < 19]
            assert early[:4] == [0, 0, 0, 0]
            wakers = early[4:]
            assert len(wakers) == len(set(wakers))  # one at a time
            assert not line.retrier.waking

        run(main())

    def test_waking_call_lets_the_server_hold_it_until_its_deadline(self) -> None:
        async def main() -> None:
            line = Line(Model(fault=failing(waking())))
            await line.writing.generate(chat(deadline=25.0))
            assert [call.context.hold for call in line.model.calls] == [None, pytest.approx(24.0)]

        run(main())

    def test_calls_that_time_out_report_the_server_as_waking(self) -> None:
        async def main() -> None:
            line = Line(Model(fault=waking))
            calls = (line.writing.generate(chat(deadline=deadline)) for deadline in (12.0, 5.0))
            waker, other = await asyncio.gather(*calls, return_exceptions=True)
            for error in (waker, other):
                assert isinstance(error, UpstreamRefused)
                assert error.cause is Cause.WAKING
                assert "shared" not in str(error)

        run(main())

    def test_next_call_wakes_the_server_when_the_first_times_out(self) -> None:
        async def main() -> None:
            line = Line(Model(fault=lambda: waking() if now() < 12 else None))
            calls = (line.writing.generate(chat(deadline=deadline)) for deadline in (6.0, 28.0))
            waker, other = await asyncio.gather(*calls, return_exceptions=True)
            assert isinstance(waker, UpstreamRefused)
            assert other == HELLO

        run(main())

    def test_does_not_wait_for_waking_when_a_fallback_exists(self) -> None:
        async def main() -> None:
            line = Line(Model(fault=waking), patient=False)
            with pytest.raises(UpstreamRefused):
                await line.writing.generate(chat())
            assert len(line.model.times) == 3

        run(main())


def test_text_that_took_too_long_is_not_sent_again() -> None:
    def slow() -> HubgateError:
        return UpstreamUnreachable("It took too long.", cause=Cause.UPSTREAM_TIMEOUT)

    async def main() -> int:
        model = Model(fault=slow)
        limiter, places = RateLimiter(None, clock=now), ConcurrencyLimit(8, clock=now)
        pipeline = GenerationPipeline(
            model,
            queue=GenerationQueue(limiter, places=places, clock=now),
            retrier=Retrier(limiter, places=places, clock=now),
            breaker=CircuitBreaker(clock=now),
            default_timeout=600.0,
            clock=now,
        )
        with pytest.raises(UpstreamUnreachable, match="took too long"):
            await pipeline.generate(Chat(fields={"messages": b"[]"}))
        return len(model.calls)

    assert run(main()) == 1
