"""The fair queue: the order, the grouping and the time of requests, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from scripted_upstream import ScriptedUpstream, embed, vector
from virtual_time import now, run

from hubgate.core.queue.batch_queue import BatchLimits, BatchQueue
from hubgate.core.traffic.concurrency import ConcurrencyLimit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.domain.calls import Context, Embed, Tokenize, Tokens, Vectors
from hubgate.domain.endpoint import InputType
from hubgate.domain.errors import Cause, DeadlineExceeded, InvalidRequest, QueueFull, UpstreamRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.domain.calls import Call


def packed(
    server: ScriptedUpstream, per_minute: int | None = None, concurrency: int = 8, **limits: int
) -> BatchQueue:
    return BatchQueue(
        server,
        limiter=RateLimiter(per_minute, clock=now),
        places=ConcurrencyLimit(concurrency, clock=now),
        limits=BatchLimits(**limits),
        clock=now,
    )


async def vectors(queue: BatchQueue, call: Embed) -> Vectors:
    result = await queue(call)
    assert isinstance(result, Vectors)
    assert list(result.items) == [vector(text) for text in call.texts]
    return result


async def together(queue: BatchQueue, calls: Sequence[Call]) -> list[object]:
    """Results or errors of calls made at the same time."""
    return list(await asyncio.gather(*map(queue, calls), return_exceptions=True))


def test_batches_simultaneous_calls() -> None:
    server = ScriptedUpstream()
    run(together(packed(server), [embed(f"t{n}") for n in range(20)]))
    assert server.asked == [[f"t{n}" for n in range(20)]]


def test_splits_long_call_at_the_text_limit_and_keeps_order() -> None:
    server = ScriptedUpstream()
    call = embed(*(f"{n}" for n in range(1000)))
    result = run(vectors(packed(server, concurrency=4), call))
    assert [len(texts) for texts in server.asked] == [32] * 31 + [8]
    assert server.busiest == 4
    assert result.tokens == 10_000


def test_all_that_waits_leaves_one_turn_after_the_first_request() -> None:
    server = ScriptedUpstream()

    async def main() -> None:
        queue = packed(server)
        calls = [asyncio.create_task(queue(embed(f"t{n}"))) for n in range(200)]
        for _ in range(3):  # the calls are queued, the first request leaves, the others leave
            await asyncio.sleep(0)
        assert [len(texts) for texts in server.asked] == [32] * 6 + [8]
        await asyncio.gather(*calls)

    run(main())


def test_full_requests_that_leave_together_keep_all_limits() -> None:
    server = ScriptedUpstream(seconds=0.1)

    async def main(queue: BatchQueue) -> None:
        await asyncio.gather(*(queue(embed(f"t{n}")) for n in range(320)))

    run(main(packed(server, concurrency=3)))
    assert server.busiest == 3
    server = ScriptedUpstream(seconds=0.1)
    limiter = RateLimiter(None, max_concurrent_texts=80, clock=now)
    run(main(BatchQueue(server, limiter=limiter, clock=now)))
    assert server.busiest == 3
    assert sum(map(len, server.asked)) == 320


def test_request_that_leaves_together_with_a_failed_one_of_its_call_is_not_sent() -> None:
    asked = []

    async def refuse(call: Call) -> Vectors:
        asked.append(len(call.texts))
        raise UpstreamRefused("No.", status=401, cause=Cause.WRONG_TOKEN)

    limiter = RateLimiter(60, burst=4, clock=now)
    queue = BatchQueue(refuse, limiter=limiter, clock=now)

    async def main() -> int:
        with pytest.raises(UpstreamRefused):
            await queue(embed(*map(str, range(96))))
        await asyncio.sleep(0.01)
        return limiter.used()

    assert run(main()) == 1
    assert asked == [32]
    assert queue.in_flight == 0


def test_sends_single_call_unchanged_without_delay() -> None:
    server = ScriptedUpstream()
    call = embed("alone", deadline=45.0)
    result = run(vectors(packed(server, 60), call))
    assert server.calls[0] is call
    assert server.times == [0.0]
    assert result.waited == 0.0


def test_batches_640_texts_of_64_callers_into_20_requests() -> None:
    """60 permits a minute and 32 texts per request; each caller sends one text at a time, at any concurrency."""
    for concurrency in (1, 2, 8, 64):
        server = ScriptedUpstream(seconds=0.05)

        async def asker(queue: BatchQueue, number: int) -> None:
            for turn in range(10):
                await vectors(queue, embed(f"{number}.{turn}", caller=f"key{number % 3}"))

        async def main(concurrency: int = concurrency, server: ScriptedUpstream = server) -> None:
            queue = packed(server, 60, concurrency=concurrency)
            await asyncio.gather(*(asker(queue, number) for number in range(64)))

        run(main())
        assert len(server.asked) == 20
        assert server.times[-1] == pytest.approx(19.0)


def test_batch_accepts_and_drops_texts_until_a_permit_is_granted() -> None:
    server = ScriptedUpstream()

    async def main() -> None:
        queue = packed(server, 60)
        await vectors(queue, embed("first"))
        leaver = asyncio.create_task(queue(embed("leaver")))
        stayer = asyncio.create_task(queue(embed("stayer")))
        await asyncio.sleep(0.5)
        leaver.cancel()
        late = asyncio.create_task(queue(embed("late")))
        await asyncio.gather(stayer, late)

    run(main())
    assert server.asked == [["first"], ["stayer", "late"]]


def test_batches_only_calls_with_equal_options() -> None:
    server = ScriptedUpstream()
    query = Embed(texts=["q1"], input_type=InputType.SEARCH)
    calls: list[Call] = [embed("d1"), query, embed("d2"), Embed(texts=["q2"], input_type=InputType.SEARCH)]
    run(together(packed(server), calls))
    assert server.asked == [["d1", "d2"], ["q1", "q2"]]


def test_queues_other_calls_without_batching_them() -> None:
    server = ScriptedUpstream()
    calls: list[Call] = [Tokenize(texts=["a", "b"]), embed("d1"), Tokenize(texts=["c"]), embed("d2")]
    results = run(together(packed(server, 60), calls))
    assert server.asked == [["a", "b"], ["d1", "d2"], ["c"]]
    assert isinstance(results[0], Tokens)
    assert len(results[0].items) == 2
    assert server.times == pytest.approx([0, 1, 2])


def test_batch_closes_at_byte_limit() -> None:
    server = ScriptedUpstream()
    calls = [embed("é" * 20), embed("x" * 50), embed("y" * 500), embed("z" * 20)]
    run(together(packed(server, 60, max_bytes=100), calls))
    assert [[text[0] for text in texts] for texts in server.asked] == [["é", "x"], ["y"], ["z"]]


def test_batch_closes_at_remaining_tokens_per_minute() -> None:
    server = ScriptedUpstream(seconds=0.0)

    async def main() -> None:
        limiter = RateLimiter(None, tokens_per_minute=100, clock=now)
        queue = BatchQueue(server, limiter=limiter, limits=BatchLimits(max_tokens=60), clock=now)
        await together(queue, [embed(letter * 90) for letter in "abcde"])

    run(main())
    assert [[text[0] for text in texts] for texts in server.asked] == [["a", "b"], ["c"], ["d", "e"]]
    assert server.times == pytest.approx([0, 0, 60.05], abs=0.01)


def test_limits_texts_in_flight() -> None:
    server = ScriptedUpstream(seconds=1.0)

    async def main() -> None:
        limiter = RateLimiter(None, max_concurrent_texts=40, clock=now)
        queue = BatchQueue(server, limiter=limiter, clock=now)
        await vectors(queue, embed(*(f"{n}" for n in range(100))))

    run(main())
    assert [len(texts) for texts in server.asked] == [32, 8, 32, 8, 20]
    assert server.times == pytest.approx([0, 0, 1, 1, 2])


def test_single_text_is_not_delayed_by_long_call() -> None:
    server = ScriptedUpstream()

    async def main() -> float:
        queue = packed(server, 60)
        long = asyncio.create_task(queue(embed(*(f"{n}" for n in range(1000)))))
        await asyncio.sleep(0.5)
        await vectors(queue, embed("single"))
        at = now()
        await long
        return at

    assert run(main()) == pytest.approx(1.1)
    assert len(server.asked) == 32


def test_stream_of_single_texts_does_not_starve_long_call() -> None:
    """With 40 single texts a second from the same key and 32 texts sent a second, the long call gets half."""
    server = ScriptedUpstream()

    async def main() -> float:
        queue = packed(server, 60)
        long = asyncio.create_task(queue(embed(*(f"{n}" for n in range(160)))))
        singles = []
        while not long.done() and now() < 30.0:
            singles.append(asyncio.create_task(queue(embed("single"))))
            await asyncio.sleep(1 / 40)
        at = now()
        await asyncio.gather(*singles)
        return at

    assert run(main()) == pytest.approx(9.1, abs=1.1)


def test_calls_of_one_key_leave_in_order_until_another_key_comes() -> None:
    """The call that a full request has cut in two is completed, and then both keys take turns."""
    server = ScriptedUpstream()

    async def main() -> None:
        queue = packed(server, 60, max_texts=9)
        first = [asyncio.create_task(vectors(queue, embed(f"a{n}", f"A{n}", caller="a"))) for n in range(12)]
        await asyncio.sleep(0.5)
        other = [asyncio.create_task(vectors(queue, embed(f"b{n}", f"B{n}", caller="b"))) for n in range(4)]
        await asyncio.gather(*first, *other)

    run(main())
    assert server.asked[0] == ["a0", "A0", "a1", "A1", "a2", "A2", "a3", "A3", "a4"]
    assert "A4" in server.asked[1]
    assert sum(text.lower().startswith("b") for text in server.asked[1]) == 4
    assert [len(texts) for texts in server.asked] == [9, 9, 9, 5]


def test_keys_share_batches_evenly() -> None:
    server = ScriptedUpstream()

    async def main() -> None:
        queue = packed(server, 60)
        await together(
            queue,
            [
                embed("first"),
                *(embed(f"a{n}", caller="a") for n in range(300)),
                embed(*(f"b{n}" for n in range(300)), caller="b"),
                *(embed(f"c{n}", caller="c") for n in range(300)),
            ],
        )

    run(main())
    for texts in server.asked[1:20]:
        counts = [sum(text.startswith(key) for text in texts) for key in "abc"]
        assert max(counts) - min(counts) <= 8


@pytest.mark.parametrize(
    "call",
    [
        Embed(
            texts=["b"], normalize=False, context=Context(caller="B")
        ),  # may not share a request with the others
        embed("b" * 995, caller="B"),  # does not fit beside a turn of the others
    ],
)
def test_skipped_caller_is_first_in_the_next_batch(call: Embed) -> None:
    server = ScriptedUpstream()

    async def main() -> None:
        queue = packed(server, 60, max_bytes=1000)
        callers = {"A": embed(*["a"] * 200, caller="A"), "B": call, "C": embed(*["c"] * 200, caller="C")}
        async with asyncio.TaskGroup() as calls:
            for one in callers.values():
                calls.create_task(queue(one))

    run(main())
    assert server.asked[1][0] == call.texts[0]


def test_interactive_calls_go_first_without_starving_bulk() -> None:
    server = ScriptedUpstream()

    async def main() -> list[int]:
        queue = packed(server, 60)
        bulk = [asyncio.create_task(queue(embed(f"b{n}", caller="job", bulk=True))) for n in range(64)]
        people = [asyncio.create_task(queue(embed(f"i{n}", caller="person"))) for n in range(640)]
        await asyncio.gather(*bulk, *people)
        return [number for number, texts in enumerate(server.asked) if texts[0].startswith("b")]

    assert run(main()) == [7, 15]


def test_full_queue_rejects_calls_with_retry_after() -> None:
    server = ScriptedUpstream()

    async def main() -> None:
        queue = packed(server, 60, max_waiting_calls=100)
        waiting = [asyncio.create_task(queue(embed(f"{n}"))) for n in range(100)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as refusal:
            await queue(embed("too many"))
        assert now() == 0.0
        assert refusal.value.retry_after == pytest.approx(3.0, abs=1.0)
        await asyncio.gather(*waiting)
        await vectors(queue, embed("later"))

    run(main())


def test_queue_is_bounded_in_bytes_but_accepts_any_call_when_empty() -> None:
    async def main() -> None:
        queue = packed(ScriptedUpstream(), 60, max_waiting_bytes=10)
        waiting = asyncio.create_task(vectors(queue, embed("x" * 100, "y")))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await queue(embed("z"))
        await waiting

    run(main())


def test_rejects_call_whose_estimated_wait_exceeds_its_deadline() -> None:
    """The estimate counts batches: 63 waiting calls are two requests, and 1,600 texts are fifty."""

    async def main() -> None:
        queue = packed(ScriptedUpstream(), 60)
        waiting = [asyncio.create_task(queue(embed(f"{n}", deadline=3.0))) for n in range(64)]
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded) as refusal:
            await queue(embed(*(f"{n}" for n in range(1600)), caller="other", deadline=45.0))
        assert refusal.value.retry_after == pytest.approx(51 - 45, abs=2)
        with pytest.raises(DeadlineExceeded):
            await queue(embed("come and gone", deadline=-1.0))
        assert now() == 0.0
        await asyncio.gather(*waiting)

    run(main())


def test_bulk_wait_estimate_is_not_the_whole_interactive_backlog() -> None:
    async def main() -> None:
        queue = packed(ScriptedUpstream(), 60)
        crowd = embed(*(f"{n}" for n in range(3200)), caller="crowd")
        waiting = asyncio.create_task(queue(crowd))
        await asyncio.sleep(0)
        await queue(embed("b", caller="bulk", bulk=True, deadline=45.0))
        assert now() < 10
        many = embed(*(f"{n}" for n in range(320)), caller="bulk", bulk=True, deadline=now() + 45.0)
        with pytest.raises(DeadlineExceeded):
            await queue(many)
        await waiting

    run(main())


def test_wait_estimate_includes_server_latency() -> None:
    async def main() -> None:
        queue = packed(ScriptedUpstream(seconds=8.0), concurrency=1)
        for _ in range(20):
            await queue(embed("learn"))
        waiting = [asyncio.create_task(queue(embed(f"{n}"))) for n in range(128)]
        await asyncio.sleep(0.1)
        with pytest.raises(DeadlineExceeded):
            await queue(embed("late", deadline=now() + 10.0))
        await asyncio.gather(*waiting)

    run(main())


def test_expired_call_fails_and_leaves_the_queue() -> None:
    server = ScriptedUpstream(seconds=10.0)

    async def main() -> None:
        queue = packed(server, concurrency=1)
        waiting = asyncio.create_task(queue(embed("first")))
        await asyncio.sleep(1.0)
        with pytest.raises(DeadlineExceeded, match=r"after 4\.0 s, while it waited in the endpoint's queue"):
            await queue(embed("second", deadline=5.0))
        await waiting
        with pytest.raises(DeadlineExceeded, match="while it waited for the model's server"):
            await queue(embed("third", deadline=now() + 5.0))

    run(main())
    assert server.asked == [["first"], ["third"]]
    assert server.cancelled == 1


def test_rejects_call_without_texts() -> None:
    with pytest.raises(InvalidRequest):
        run(packed(ScriptedUpstream())(embed()))


def test_reports_wait_in_result_and_metric() -> None:
    waits: list[float] = []

    async def main() -> list[float]:
        queue = BatchQueue(
            ScriptedUpstream(), limiter=RateLimiter(60, clock=now), clock=now, on_wait=waits.append
        )
        await queue(embed("first"))
        second = await vectors(queue, embed("second"))
        long = await vectors(queue, embed(*(f"{n}" for n in range(40))))
        return [second.waited, long.waited]

    assert run(main()) == pytest.approx([0.9, 1.9])
    assert waits == pytest.approx([0.0, 0.9, 1.9])


def test_gauges_and_counters_report_queue_and_shared_calls() -> None:
    async def main() -> None:
        queue = packed(ScriptedUpstream(seconds=2.0), 60)
        waiting = [asyncio.create_task(queue(embed(f"{n}", "and"))) for n in range(20)]
        await asyncio.sleep(0.1)
        assert (queue.queued_calls, queue.queued_texts, queue.in_flight) == (4, 8, 1)
        await asyncio.sleep(1)
        assert (queue.queued_calls, queue.queued_texts, queue.in_flight) == (0, 0, 2)
        await asyncio.gather(*waiting)
        assert (queue.requests, queue.shared, queue.in_flight) == (2, 18, 0)

    run(main())


def test_logs_all_request_ids_of_a_batch(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(together(packed(ScriptedUpstream()), [embed("r1"), embed("r2"), embed("r3")]))
    assert "sending 3 texts of 3 requests together: r1, r2, r3" in caplog.text


def test_endpoints_share_one_rate_limit_evenly() -> None:
    busy, calm = ScriptedUpstream(), ScriptedUpstream()

    async def main() -> None:
        limiter = RateLimiter(60, clock=now)
        first = BatchQueue(busy, limiter=limiter, clock=now)
        second = BatchQueue(calm, limiter=limiter, clock=now)
        await asyncio.gather(
            first(embed(*(f"{n}" for n in range(640)))), second(embed(*(f"{n}" for n in range(96))))
        )

    run(main())
    assert calm.times == pytest.approx([1, 3, 5])


def test_close_rejects_waiting_calls_and_finishes_requests_in_flight() -> None:
    server = ScriptedUpstream(seconds=5.0)

    async def main() -> list[object]:
        queue = packed(server, 60)
        calls = [asyncio.create_task(queue(embed(f"{n}"))) for n in range(40)]
        await asyncio.sleep(0.5)
        await queue.close()
        with pytest.raises(QueueFull, match="is closing"):
            await queue(embed("late"))
        return list(await asyncio.gather(*calls, return_exceptions=True))

    results = run(main())
    assert sum(isinstance(result, Vectors) for result in results) == 32
    assert sum(isinstance(result, QueueFull) for result in results) == 8
    assert len(server.asked) == 1


def test_idle_queue_closes_immediately() -> None:
    run(packed(ScriptedUpstream()).close())


def test_close_rejects_call_that_was_just_queued() -> None:
    server = ScriptedUpstream()

    async def main() -> None:
        queue = packed(server)
        call = asyncio.create_task(queue(embed("a")))
        await asyncio.sleep(0)
        await queue.close()
        with pytest.raises(QueueFull):
            await call

    run(main())
    assert not server.asked
