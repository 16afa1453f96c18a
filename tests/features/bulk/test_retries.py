"""What a job does when a request fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from model_script import Script, one_each, refused

from hubgate.domain.errors import Cause
from hubgate.features.bulk.engine.retries import EmbeddedRows, RetryingEmbedder
from hubgate.features.bulk.engine.rows import JobStopped, Reply, Row

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Time:
    """A clock that only sleeping moves."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def rows(*texts: str) -> list[Row]:
    return [Row(number, number, text) for number, text in enumerate(texts)]


def asking(script: Script, time: Time, waits: list[str | None] | None = None) -> RetryingEmbedder:
    return RetryingEmbedder(
        script, clock=time, sleep=time.sleep, on_wait=(waits if waits is not None else []).append
    )


def embedded(asked: EmbeddedRows) -> list[str]:
    return [row.text for row in asked.embedded.rows]


@pytest.mark.parametrize(
    "cause",
    [
        Cause.INVALID_REQUEST,
        Cause.INPUT_REFUSED,
        Cause.INPUT_TOO_LONG,
        Cause.BODY_TOO_LARGE,
        Cause.NOT_A_NUMBER,
    ],
)
async def test_rejected_text_is_found_by_bisection_and_fails_alone(cause: Cause) -> None:
    def answer(texts: Sequence[str]) -> Reply:
        if "bad" in texts:
            raise refused(cause)
        return one_each(texts)

    script = Script(answer)
    asked = await asking(script, Time())(rows("a", "b", "c", "bad", "d", "e", "f"))
    assert embedded(asked) == ["a", "b", "c", "d", "e", "f"]
    assert [(failed.row, failed.cause) for failed in asked.failed] == [(3, cause)]
    assert asked.failed[0].message == f"It is {cause}."
    assert len(script.asked) == 7  # the whole, and twice each half of three


async def test_request_that_times_out_is_split_in_half() -> None:
    def answer(texts: Sequence[str]) -> Reply:
        if len(texts) > 1:
            raise refused(Cause.DEADLINE_EXCEEDED, retryable=True)
        return one_each(texts)

    time = Time()
    assert embedded(await asking(Script(answer), time)(rows("a", "b", "c"))) == ["a", "b", "c"]
    assert time.slept == []


async def test_overloaded_server_is_retried_after_its_delay_or_with_backoff() -> None:
    troubles = [
        refused(Cause.OVERLOADED, retryable=True, retry_after=7.0),
        *[refused(Cause.WAKING, retryable=True) for _ in range(7)],
        refused(Cause.OVERLOADED, retryable=True, retry_after=3600.0),
    ]

    def answer(texts: Sequence[str]) -> Reply:
        if troubles:
            raise troubles.pop(0)
        return one_each(texts)

    time, waits = Time(), list[str | None]()
    assert embedded(await asking(Script(answer), time, waits)(rows("a", "b"))) == ["a", "b"]
    assert time.slept == [7.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert waits[0] == "It is overloaded."
    assert waits[-1] is None


async def test_job_stops_when_no_request_succeeds_for_10_minutes() -> None:
    def answer(texts: Sequence[str]) -> Reply:
        raise refused(Cause.GATE_STOPPING, retryable=True)

    time = Time()
    with pytest.raises(
        JobStopped, match=r"No request succeeded for 10 minutes: It is gate_stopping\."
    ) as stopped:
        await asking(Script(answer), time)(rows("a", "b"))
    assert stopped.value.cause is Cause.GATE_STOPPING
    assert 600 < time.now < 660


async def test_time_without_requests_does_not_count_as_failure() -> None:
    """A resumed job reads the completed rows before its first request, which may take hours."""
    time, failures = Time(), [refused(Cause.OVERLOADED, retryable=True)]

    def answer(texts: Sequence[str]) -> Reply:
        if failures:
            raise failures.pop()
        return one_each(texts)

    going_on = asking(Script(answer), time)
    await going_on.model()
    time.now += 4000.0
    assert embedded(await going_on(rows("a"))) == ["a"]


@pytest.mark.parametrize(
    "cause",
    [
        Cause.MODEL_CHANGED,
        Cause.WRONG_TOKEN,
        Cause.ENDPOINT_NOT_FOUND,
        Cause.PAUSED,
    ],
)
async def test_permanent_error_stops_the_job_at_once(cause: Cause) -> None:
    def answer(texts: Sequence[str]) -> Reply:
        raise refused(cause)

    script, time = Script(answer), Time()
    with pytest.raises(JobStopped, match=f"It is {cause}") as stopped:
        await asking(script, time)(rows("a", "b"))
    assert stopped.value.cause is cause
    assert (len(script.asked), time.slept) == (1, [])


@pytest.mark.parametrize("cause", [Cause.CONNECTION_LOST, Cause.DIMENSIONS_CHANGED])
async def test_text_that_repeatedly_fails_is_isolated_while_others_succeed(cause: Cause) -> None:
    def answer(texts: Sequence[str]) -> Reply:
        if "bad" in texts:
            raise refused(cause)
        return one_each(texts)

    script, time = Script(answer), Time()
    ask = asking(script, time)

    async def sleep_and_answer_others(seconds: float) -> None:
        time.now += seconds
        await ask(rows("stranger"))

    ask = RetryingEmbedder(script, clock=time, sleep=sleep_and_answer_others)
    asked = await ask(rows("a", "bad"))
    assert embedded(asked) == ["a"]
    assert [failed.cause for failed in asked.failed] == [cause]


async def test_no_row_is_given_up_while_every_request_fails() -> None:
    failures = 8

    def answer(texts: Sequence[str]) -> Reply:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise refused(Cause.UPSTREAM_FAILED)
        return one_each(texts)

    asked = await asking(Script(answer), Time())(rows("a", "b"))
    assert (embedded(asked), asked.failed) == (["a", "b"], [])


async def test_no_request_is_sent_for_zero_rows() -> None:
    script = Script()
    assert (await asking(script, Time())([])).embedded == ([], [])
    assert script.asked == []


async def test_usage_of_split_requests_is_summed() -> None:
    def answer(texts: Sequence[str]) -> Reply:
        if len(texts) > 1:
            raise refused(Cause.BODY_TOO_LARGE)
        return one_each(texts)._replace(exact=texts[0] != "b c")

    asked = await asking(Script(answer), Time())(rows("a", "b c"))
    assert (asked.tokens, asked.exact) == (3, False)


async def test_model_lookup_error_stops_the_job_with_its_reason() -> None:
    class Broken(Script):
        tries = 0

        async def model(self) -> dict[str, object]:
            self.tries += 1
            if self.tries == 1:
                raise refused(Cause.GATE_STOPPING, retryable=True)
            raise refused(Cause.INVALID_REQUEST)

    with pytest.raises(JobStopped, match="It is invalid_request"):
        await asking(Broken(), Time()).model()
