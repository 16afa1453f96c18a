"""The fair queue when servers fail, callers leave, and schedules are random, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples
from scripted_upstream import ScriptedUpstream, embed, refused, vector
from slow_server import max_per_minute
from virtual_time import now, run

from hubgate.core.queue.batch_queue import BatchLimits, BatchQueue
from hubgate.core.queue.splitting import worth_splitting
from hubgate.core.traffic.concurrency import ConcurrencyLimit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.retry import Retrier, RetryStep
from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.errors import (
    Cause,
    DeadlineExceeded,
    HubgateError,
    InvalidRequest,
    QueueFull,
    UpstreamRefused,
    UpstreamUnreachable,
    UpstreamUnreadable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.domain.calls import Call, Result


def packed(server: ScriptedUpstream, per_minute: int | None = None, **limits: int) -> BatchQueue:
    return BatchQueue(
        server, limiter=RateLimiter(per_minute, clock=now), limits=BatchLimits(**limits), clock=now
    )


async def outcomes(queue: BatchQueue, calls: Sequence[Call]) -> list[Result | BaseException]:
    """Results or errors of calls made at the same time."""
    return list(await asyncio.gather(*map(queue, calls), return_exceptions=True))


def no_bad_text(texts: Sequence[str]) -> Exception | None:
    return refused(message=f"cannot read {texts}") if any(text.startswith("bad") for text in texts) else None


def too_many(texts: Sequence[str]) -> Exception | None:
    return refused(413, Cause.BODY_TOO_LARGE) if len(texts) > 5 else None


def test_refused_text_fails_only_its_own_caller() -> None:
    server = ScriptedUpstream(fault=no_bad_text)
    calls = [embed("bad" if n == 13 else f"t{n}", caller=f"key{n}") for n in range(32)]
    results = run(outcomes(packed(server, 60), calls))
    for n, result in enumerate(results):
        if n == 13:
            assert isinstance(result, UpstreamRefused)
            assert "bad" in result.server_message
        else:
            assert isinstance(result, Vectors)
            assert result.items[0] == vector(f"t{n}")
    assert len(server.asked) == 1 + 2 * 5


def test_each_split_request_takes_a_permit_and_keeps_its_slot() -> None:
    server = ScriptedUpstream(fault=no_bad_text, seconds=0.01)

    async def main() -> None:
        limiter = RateLimiter(60, max_concurrent_requests=1, clock=now)
        queue = BatchQueue(server, limiter=limiter, clock=now)
        await outcomes(queue, [embed("bad"), *(embed(f"t{n}") for n in range(39))])

    run(main())
    assert server.times == pytest.approx(range(len(server.times)))
    assert server.busiest == 1
    assert len(server.asked[-1]) == 8


def test_does_not_split_a_single_call() -> None:
    server = ScriptedUpstream(fault=no_bad_text)
    (result,) = run(outcomes(packed(server), [embed("bad", "good", "better")]))
    assert isinstance(result, UpstreamRefused)
    assert len(server.asked) == 1


def test_halves_requests_with_too_many_texts() -> None:
    server = ScriptedUpstream(fault=too_many)
    (result,) = run(outcomes(packed(server), [embed(*(f"{n}" for n in range(17)))]))
    assert isinstance(result, Vectors)
    assert list(result.items) == [vector(f"{n}") for n in range(17)]


@pytest.mark.parametrize("callers", [2, 12])
def test_errors_do_not_contain_texts_of_other_keys(callers: int) -> None:
    server = ScriptedUpstream(
        fault=lambda texts: refused(500, Cause.UPSTREAM_FAILED, message=f"crashed on {texts}")
    )
    calls = [embed(f"secret {n:02}", caller=f"key{n}") for n in range(callers)]
    for n, result in enumerate(run(outcomes(packed(server), calls))):
        assert isinstance(result, UpstreamRefused)
        shown = repr([result, result.args, result.message, result.server_message, result.__cause__])
        assert "secret" not in shown.replace(f"secret {n:02}", "")
        assert result.status == 500


def test_unreadable_reply_is_not_quoted_to_other_keys() -> None:
    server = ScriptedUpstream(
        fault=lambda texts: UpstreamUnreadable(f"No vectors but {texts}", cause=Cause.NOT_AN_API)
    )
    for result in run(outcomes(packed(server), [embed("secret", caller="a"), embed("b", caller="b")])):
        assert isinstance(result, UpstreamUnreadable)
        assert "secret" not in str(result)


def test_gateway_errors_reach_all_keys_verbatim() -> None:
    server = ScriptedUpstream(fault=lambda texts: InvalidRequest("The server cannot shorten its vectors."))
    calls = [embed("a", caller="one"), embed("b", caller="other")]
    assert {str(error) for error in run(outcomes(packed(server), calls))} == {
        "The server cannot shorten its vectors."
    }


def test_server_message_is_kept_when_all_calls_have_one_key() -> None:
    server = ScriptedUpstream(fault=lambda texts: refused(500, Cause.UPSTREAM_FAILED, message="crashed"))
    for result in run(outcomes(packed(server), [embed("a"), embed("b")])):
        assert isinstance(result, UpstreamRefused)
        assert result.server_message == "crashed"


def test_unexpected_exception_reaches_every_caller(caplog: pytest.LogCaptureFixture) -> None:
    server = ScriptedUpstream(fault=lambda texts: ZeroDivisionError("oops"))
    results = run(outcomes(packed(server), [embed("a", caller="a"), embed("b", caller="b")]))
    assert [type(result) for result in results] == [HubgateError] * 2
    assert "ZeroDivisionError" in caplog.text


def crash() -> Exception:
    return UpstreamUnreachable("It closed the connection.", cause=Cause.CONNECTION_LOST)


def unreadable(cause: Cause) -> Exception:
    return UpstreamUnreadable("It answered something else.", cause=cause)


@pytest.mark.parametrize(
    "failure",
    [
        crash(),
        refused(500, Cause.UPSTREAM_FAILED),
        refused(424, Cause.UPSTREAM_FAILED),
        unreadable(Cause.UNREADABLE_REPLY),
        unreadable(Cause.DIMENSIONS_CHANGED),
        unreadable(Cause.NOT_A_NUMBER),
    ],
)
@pytest.mark.parametrize("bad", [{0}, {13}, {31}, {3, 29}, {8, 9}])
def test_text_that_makes_the_server_fail_fails_only_its_own_caller(
    failure: HubgateError, bad: set[int]
) -> None:
    server = ScriptedUpstream(
        fault=lambda texts: failure if any(text.startswith("bad") for text in texts) else None
    )
    calls = [embed(f"bad{n}" if n in bad else f"t{n}", caller=f"key{n}") for n in range(32)]
    for n, result in enumerate(run(outcomes(packed(server), calls))):
        if n in bad:
            assert isinstance(result, type(failure))
            assert result.cause is failure.cause
        else:
            assert isinstance(result, Vectors)
            assert result.items[0] == vector(f"t{n}")
    assert len(server.asked) <= 1 + 2 * 5 * len(bad)


def test_splits_after_a_crash_only_when_retries_are_exhausted() -> None:
    crashes = [3]

    def crashing(texts: Sequence[str]) -> Exception | None:
        crashes[0] -= "bad" in texts
        return crash() if "bad" in texts and crashes[0] >= 0 else None

    async def main(server: ScriptedUpstream) -> list[Result | BaseException]:
        limiter = RateLimiter(None, clock=now)
        queue = BatchQueue(RetryStep(server, Retrier(limiter, clock=now)), limiter=limiter, clock=now)
        return await outcomes(queue, [embed("bad"), embed("a"), embed("b"), embed("c")])

    server = ScriptedUpstream(fault=crashing)
    assert all(isinstance(result, Vectors) for result in run(main(server)))
    assert list(map(len, server.asked)) == [4, 4, 4, 2, 2]


@pytest.mark.parametrize(
    "failure", [crash(), refused(500, Cause.UPSTREAM_FAILED), unreadable(Cause.WRONG_COUNT)]
)
def test_stops_splitting_after_four_failed_parts(failure: HubgateError) -> None:
    server = ScriptedUpstream(fault=lambda texts: failure)
    results = run(outcomes(packed(server), [embed(f"{n}", caller=f"key{n}") for n in range(32)]))
    assert {type(result) for result in results} == {type(failure)}
    assert len(server.asked) == 1 + 4


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamUnreachable("Nothing listens.", cause=Cause.CONNECTION_REFUSED),
        UpstreamUnreachable("No such name.", cause=Cause.NAME_NOT_RESOLVED),
        UpstreamUnreachable("It did not answer.", cause=Cause.UPSTREAM_TIMEOUT),
        refused(503, Cause.WAKING),
        refused(503, Cause.UPSTREAM_FAILED),
        refused(429, Cause.OVERLOADED),
        refused(500, Cause.OVERLOADED),
        refused(400, Cause.PAUSED),
        refused(401, Cause.WRONG_TOKEN),
        refused(402, Cause.OUT_OF_CREDIT),
        refused(403, Cause.TOKEN_LACKS_SCOPE),
        unreadable(Cause.NOT_AN_API),
    ],
)
def test_does_not_split_on_failures_that_no_text_can_cause(failure: HubgateError) -> None:
    server = ScriptedUpstream(fault=lambda texts: failure)
    results = run(outcomes(packed(server), [embed("a"), embed("b")]))
    assert {type(result) for result in results} == {type(failure)}
    assert len(server.asked) == 1


def test_wrong_vector_count_retries_each_call_alone() -> None:
    """A part of the batch could have the right number of vectors, but those of other texts."""

    async def dropping_and_doubling(call: Call) -> Result:
        texts = [text for text in call.texts for _ in range({"none": 0, "two": 2}.get(text, 1))]
        return Vectors(items=[vector(text) for text in texts], encoding=Encoding.F32)

    queue = BatchQueue(dropping_and_doubling, limiter=RateLimiter(None, clock=now), clock=now)
    words = ["a", "none", "two", "b", "two"]
    for word, result in zip(words, run(outcomes(queue, [embed(word) for word in words])), strict=True):
        if word in {"none", "two"}:
            assert isinstance(result, UpstreamUnreadable)
            assert result.cause is Cause.WRONG_COUNT
        else:
            assert isinstance(result, Vectors)
            assert list(result.items) == [vector(word)]


def test_cancelled_upstream_request_fails_all_callers() -> None:
    async def dropping(call: Call) -> Result:
        raise asyncio.CancelledError

    queue = BatchQueue(dropping, limiter=RateLimiter(None, clock=now), clock=now)
    for result in run(outcomes(queue, [embed("a"), embed("b")])):
        assert isinstance(result, UpstreamUnreachable)


def test_cancels_shared_request_only_when_all_callers_have_left() -> None:
    server = ScriptedUpstream(seconds=10.0)

    async def main() -> float:
        queue = packed(server)
        first, second = (asyncio.create_task(queue(embed(name))) for name in ("first", "second"))
        await asyncio.sleep(1.0)
        first.cancel()
        await asyncio.sleep(1.0)
        assert server.busy == 1
        second.cancel()
        await asyncio.sleep(0.1)
        assert (server.busy, server.cancelled, queue.in_flight) == (0, 1, 0)
        return now()

    assert run(main()) == pytest.approx(2.1)


def test_split_requests_omit_cancelled_calls() -> None:
    server = ScriptedUpstream(fault=no_bad_text)

    async def main() -> None:
        queue = packed(server, 60)
        leavers = [asyncio.create_task(queue(embed(f"bad{n}"))) for n in range(2)]
        stayers = [asyncio.create_task(queue(embed(f"t{n}"))) for n in range(2)]
        await asyncio.sleep(0.5)
        for leaver in leavers:
            leaver.cancel()
        await asyncio.gather(*stayers)

    run(main())
    assert server.asked == [["bad0", "bad1", "t0", "t1"], ["t0", "t1"]]


def test_cancelled_close_ends_requests_in_flight() -> None:
    server = ScriptedUpstream(seconds=100.0)

    async def main() -> None:
        queue = packed(server)
        call = asyncio.create_task(queue(embed("a")))
        await asyncio.sleep(1.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await queue.close()
        with pytest.raises(UpstreamUnreachable, match="was cancelled"):
            await call
        assert now() == pytest.approx(6.0)

    run(main())


@dataclass
class Storm:
    """Random callers and a random server, from one seed."""

    seed: int
    calls: int = 80

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.per_minute = self.chance.choice([None, 60, 600, 6000])
        self.limits = BatchLimits(
            max_texts=self.chance.choice([1, 3, 32]),
            max_bytes=self.chance.choice([30, 1_000_000]),
            max_waiting_calls=self.chance.choice([20, 2000]),
        )
        self.concurrency = self.chance.choice([1, 2, 8])
        self.places = self.chance.choice([None, 1, 3])
        self.texts_at_once = self.chance.choice([None, 5])
        self.sent: list[float] = []
        self.outcomes: Counter[str] = Counter()

    async def server(self, call: Call) -> Result:
        self.sent.append(now())
        await asyncio.sleep(self.chance.choice([0.0, 0.01, self.chance.random()]))
        if self.chance.random() < 0.05:
            raise UpstreamUnreachable("gone")
        if self.chance.random() < 0.05:
            after = self.chance.choice([None, 0.5, 3.0, 400.0])
            raise UpstreamRefused(
                "full", status=429, cause=Cause.OVERLOADED, retryable=True, retry_after=after
            )
        if error := no_bad_text(call.texts):
            raise error
        return Vectors(items=[vector(text) for text in call.texts], encoding=Encoding.F32)

    async def caller(self, queue: BatchQueue, number: int) -> None:
        chance = self.chance
        await asyncio.sleep(chance.choice([0.0, chance.random() * 5]))
        words = ["bad"] if chance.random() < 0.05 else []
        words += [f"{number:03}{n}" for n in range(chance.choice([1, 1, 1, 2, 40]))]
        deadline = chance.choice([None, now() + chance.random() * 100])
        call = embed(*words, caller=f"key{number % 4}", bulk=number % 5 == 0, deadline=deadline)
        try:
            await self.checked(queue, call)
        except (HubgateError, asyncio.CancelledError) as error:
            self.outcomes[type(error).__name__] += 1
            if isinstance(error, DeadlineExceeded):
                assert deadline is not None
                assert now() <= deadline + 0.01
            if isinstance(error, UpstreamRefused) and error.status != 429:
                assert "bad" in words

    async def checked(self, queue: BatchQueue, call: Embed) -> None:
        result = await queue(call)
        assert isinstance(result, Vectors)
        assert list(result.items) == [vector(text) for text in call.texts]
        self.outcomes["answered"] += 1

    async def rage(self) -> None:
        limiter = RateLimiter(
            self.per_minute,
            max_concurrent_requests=self.places,
            max_concurrent_texts=self.texts_at_once,
            clock=now,
        )
        limit = ConcurrencyLimit(self.concurrency, clock=now)
        queue = BatchQueue(self.server, limiter=limiter, places=limit, limits=self.limits, clock=now)
        callers = [asyncio.create_task(self.caller(queue, number)) for number in range(self.calls)]
        for caller in self.chance.sample(callers, self.calls // 4):
            await asyncio.sleep(self.chance.choice([0.0, self.chance.random() / 10]))
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await asyncio.sleep(2.0)
        await self.nothing_is_lost(queue, limiter)

    async def nothing_is_lost(self, queue: BatchQueue, limiter: RateLimiter) -> None:
        """All slots and permits are free again."""
        assert (queue.queued_calls, queue.queued_texts, queue._queue.weight, queue.in_flight) == (0, 0, 0, 0)
        await asyncio.sleep(62.0)
        for _ in range(20):
            for result in await outcomes(queue, [embed(f"{n}") for n in range(self.concurrency)]):
                assert isinstance(result, Vectors | UpstreamUnreachable | UpstreamRefused)
        fresh = RateLimiter(
            None, max_concurrent_requests=self.places, max_concurrent_texts=self.texts_at_once
        )
        assert (limiter._requests_left, limiter._texts_left) == (fresh._requests_left, fresh._texts_left)
        assert not limiter._waiting
        assert not limiter._waiting_retries


@settings(max_examples=examples(15))
@given(seed=st.integers(0, 2**32))
def test_random_load_keeps_order_and_limits_and_leaks_nothing(seed: int) -> None:
    """In virtual time a caller that waits forever is an error (`Deadlock`)."""
    storm = Storm(seed)
    run(storm.rage())
    assert storm.outcomes["answered"] > 0
    if storm.per_minute:
        gaps = [later - earlier for earlier, later in pairwise(storm.sent)]
        assert min(gaps) >= 60 / storm.per_minute - 0.021
        assert max_per_minute(storm.sent) <= storm.per_minute


def test_mass_cancellation_empties_a_full_queue() -> None:
    server = ScriptedUpstream(seconds=0.5)

    async def main() -> None:
        queue = packed(server, 60)
        for _ in range(5):
            callers = [asyncio.create_task(queue(embed(f"{n}"))) for n in range(2100)]
            await asyncio.sleep(0.1)
            assert queue.queued_calls <= 2000
            for caller in callers:
                caller.cancel()
            results = await asyncio.gather(*callers, return_exceptions=True)
            assert sum(isinstance(result, QueueFull) for result in results) >= 68
        assert (queue.queued_calls, queue.queued_texts, queue._queue.weight) == (0, 0, 0)
        await queue(embed("after"))

    run(main())


def test_splits_unreadable_reply_only_if_calls_share_the_request() -> None:
    spoilt = UpstreamUnreadable("It computes wrongly.", cause=Cause.NOT_A_NUMBER)
    assert worth_splitting(spoilt, calls=2, texts=2)
    assert not worth_splitting(spoilt, calls=1, texts=2)
