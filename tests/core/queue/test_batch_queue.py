"""The fair queue: the order, the grouping and the time of requests, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from scripted_upstream import ScriptedUpstream, embed, vector
from virtual_time import now, run

from hubgate.core.queue.batch_queue import BatchLimits, BatchQueue
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.domain.calls import Context, Embed, InputType, Tokenize, Tokens, Vectors
from hubgate.domain.errors import DeadlineExceeded, InvalidRequest, QueueFull

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.domain.calls import Call


def packed(server: ScriptedUpstream, per_minute: int | None = None, **limits: int) -> BatchQueue:
    return BatchQueue(
        server, limiter=RateLimiter(per_minute, clock=now), limits=BatchLimits(**limits), clock=now
    )


async def vectors(queue: BatchQueue, call: Embed) -> Vectors:
    result = await queue(call)
    assert isinstance(result, Vectors)
    assert list(result.items) == [vector(text) for text in call.texts]
    return result


async def together(queue: BatchQueue, calls: Sequence[Call]) -> list[object]:
    """The results, or the errors, of calls made in the same moment."""
    return list(await asyncio.gather(*map(queue, calls), return_exceptions=True))


def test_calls_of_one_moment_leave_together() -> None:
    server = ScriptedUpstream()
    run(together(packed(server), [embed(f"t{n}") for n in range(20)]))
    assert server.asked == [[f"t{n}" for n in range(20)]]


def test_a_long_call_is_cut_to_what_the_server_takes_and_comes_back_in_order() -> None:
    server = ScriptedUpstream()
    call = embed(*(f"{n}" for n in range(1000)))
    result = run(vectors(packed(server, concurrency=4), call))
    assert [len(texts) for texts in server.asked] == [32] * 31 + [8]
    assert server.busiest == 4
    assert result.tokens == 10_000


def test_a_lone_call_goes_to_the_server_as_it_is_and_at_once() -> None:
    server = ScriptedUpstream()
    call = embed("alone", deadline=45.0)
    result = run(vectors(packed(server, 60), call))
    assert server.calls[0] is call
    assert server.times == [0.0]
    assert result.waited == 0.0


def test_twenty_requests_carry_640_texts_of_64_askers_at_any_concurrency() -> None:
    """The simulation of the design: 60 permits a minute, 32 texts a request, each asker one text at a time."""
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


def test_late_texts_get_on_and_leavers_get_off_until_the_permit_comes() -> None:
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


def test_only_calls_of_equal_options_leave_together() -> None:
    server = ScriptedUpstream()
    query = Embed(texts=["q1"], input_type=InputType.SEARCH)
    calls: list[Call] = [embed("d1"), query, embed("d2"), Embed(texts=["q2"], input_type=InputType.SEARCH)]
    run(together(packed(server), calls))
    assert server.asked == [["d1", "d2"], ["q1", "q2"]]


def test_other_calls_use_the_same_queue_one_by_one() -> None:
    server = ScriptedUpstream()
    calls: list[Call] = [Tokenize(texts=["a", "b"]), embed("d1"), Tokenize(texts=["c"]), embed("d2")]
    results = run(together(packed(server, 60), calls))
    assert server.asked == [["a", "b"], ["d1", "d2"], ["c"]]
    assert isinstance(results[0], Tokens)
    assert len(results[0].items) == 2
    assert server.times == pytest.approx([0, 1, 2])


def test_a_request_holds_no_more_bytes_than_the_server_reads() -> None:
    server = ScriptedUpstream()
    calls = [embed("é" * 20), embed("x" * 50), embed("y" * 500), embed("z" * 20)]
    run(together(packed(server, 60, max_bytes=100), calls))
    assert [[text[0] for text in texts] for texts in server.asked] == [["é", "x"], ["y"], ["z"]]


def test_a_request_holds_no_more_tokens_than_are_left_of_the_minute() -> None:
    server = ScriptedUpstream(seconds=0.0)

    async def main() -> None:
        limiter = RateLimiter(None, tokens_per_minute=100, clock=now)
        queue = BatchQueue(server, limiter=limiter, limits=BatchLimits(max_tokens=60), clock=now)
        await together(queue, [embed(letter * 90) for letter in "abcde"])

    run(main())
    assert [[text[0] for text in texts] for texts in server.asked] == [["a", "b"], ["c"], ["d", "e"]]
    assert server.times == pytest.approx([0, 0, 60.05], abs=0.01)


def test_no_more_texts_are_in_flight_than_the_server_has_room_for() -> None:
    server = ScriptedUpstream(seconds=1.0)

    async def main() -> None:
        limiter = RateLimiter(None, max_concurrent_texts=40, clock=now)
        queue = BatchQueue(server, limiter=limiter, clock=now)
        await vectors(queue, embed(*(f"{n}" for n in range(100))))

    run(main())
    assert [len(texts) for texts in server.asked] == [32, 8, 32, 8, 20]
    assert server.times == pytest.approx([0, 0, 1, 1, 2])


def test_a_single_text_passes_a_call_of_a_thousand() -> None:
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


def test_a_stream_of_single_texts_does_not_hold_a_long_call_up() -> None:
    """Forty new single texts a second, by the same key, against 32 a second: the long call gets half of them."""
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


def test_keys_share_a_request_evenly_however_much_each_of_them_asks() -> None:
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
def test_who_was_passed_over_in_a_request_is_the_first_of_the_next(call: Embed) -> None:
    server = ScriptedUpstream()

    async def main() -> None:
        queue = packed(server, 60, max_bytes=1000)
        callers = {"A": embed(*["a"] * 200, caller="A"), "B": call, "C": embed(*["c"] * 200, caller="C")}
        async with asyncio.TaskGroup() as calls:
            for one in callers.values():
                calls.create_task(queue(one))

    run(main())
    assert server.asked[1][0] == call.texts[0]


def test_interactive_goes_before_bulk_but_bulk_does_not_starve() -> None:
    server = ScriptedUpstream()

    async def main() -> list[int]:
        queue = packed(server, 60)
        bulk = [asyncio.create_task(queue(embed(f"b{n}", caller="job", bulk=True))) for n in range(64)]
        people = [asyncio.create_task(queue(embed(f"i{n}", caller="person"))) for n in range(640)]
        await asyncio.gather(*bulk, *people)
        return [number for number, texts in enumerate(server.asked) if texts[0].startswith("b")]

    assert run(main()) == [7, 15]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
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


def test_the_queue_is_bounded_in_bytes_too_but_an_empty_one_takes_any_call() -> None:
    async def main() -> None:
        queue = packed(ScriptedUpstream(), 60, max_waiting_bytes=10)
        waiting = asyncio.create_task(vectors(queue, embed("x" * 100, "y")))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await queue(embed("z"))
        await waiting

    run(main())


def test_a_hopeless_wait_is_refused_at_once() -> None:
    """Judged in batches: 63 waiting callers are two requests, and 1,600 texts fifty."""

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


def test_bulk_is_not_told_to_wait_for_all_who_may_overtake_it() -> None:
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


def test_slow_servers_make_waits_hopeless_too() -> None:
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


def test_whose_time_runs_out_is_told_so_and_taken_out() -> None:
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


def test_a_call_without_texts_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        run(packed(ScriptedUpstream())(embed()))


def test_the_wait_is_told_with_the_result_and_to_the_meter() -> None:
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


def test_gauges_and_counters_tell_what_waits_and_what_was_saved() -> None:
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


def test_the_log_of_a_shared_request_names_all_requests(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(together(packed(ScriptedUpstream()), [embed("r1"), embed("r2"), embed("r3")]))
    assert "sending 3 texts of 3 requests together: r1, r2, r3" in caplog.text


def test_several_endpoints_share_one_rate_limit_evenly() -> None:
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


def test_closing_sends_away_who_waits_and_lets_the_rest_end() -> None:
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


def test_an_idle_queue_closes_at_once() -> None:
    run(packed(ScriptedUpstream()).close())


def test_a_call_that_comes_in_the_moment_of_closing_is_sent_away() -> None:
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
