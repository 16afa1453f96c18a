"""What happens when a request of a job fails: retry it, split it, give a row up, or stop the job.

| failure | reaction |
|---|---|
| a text is rejected (empty for the model, too long, not a number in its vector) | split in halves, down to the row, which fails |
| the request timed out with several texts | split in halves |
| hubgate or the model is away or busy | wait and retry; the job stops if no request succeeds for a while |
| the server fails on this request repeatedly, while it answers others | as if a text were rejected |
| anything else (another model, a wrong token, no such endpoint, …) | the job stops |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from hubgate.domain.errors import Cause, HubgateError
from hubgate.domain.ports import Clock
from hubgate.jobs.rows import Embedded, Embedder, FailedRow, JobStopped, Reply, Row

T = TypeVar("T")
_REJECTED = frozenset(
    {
        Cause.INVALID_REQUEST,
        Cause.INPUT_REFUSED,
        Cause.INPUT_TOO_LONG,
        Cause.BODY_TOO_LARGE,
        Cause.NOT_A_NUMBER,
    }
)
_TIMED_OUT = frozenset({Cause.DEADLINE_EXCEEDED, Cause.UPSTREAM_TIMEOUT})
_SUSPECT = frozenset(
    {
        Cause.CONNECTION_LOST,
        Cause.UPSTREAM_TIMEOUT,
        Cause.UPSTREAM_FAILED,
        Cause.UNREADABLE_REPLY,
        Cause.WRONG_COUNT,
        Cause.RUNTIME_CRASHED,
        Cause.INTERNAL,
    }
)
"""Causes for which one of the texts may or may not be responsible."""
_MAX_SUSPECT_TRIES = 5
_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS = 0.5, 30.0
PATIENCE_SECONDS = 600.0


@dataclass(slots=True)
class EmbeddedRows:
    """The result for some rows, possibly of several requests."""

    embedded: Embedded = field(default_factory=lambda: Embedded([], []))
    failed: list[FailedRow] = field(default_factory=list)
    tokens: int = 0
    exact: bool = True

    def add(self, rows: Sequence[Row], reply: Reply) -> None:
        owners = rows
        if reply.counts is not None:
            owners = [row for row, count in zip(rows, reply.counts, strict=True) for _ in range(count)]
        self.embedded.rows.extend(owners)
        self.embedded.pieces.extend(reply.pieces)
        self.tokens += reply.tokens
        self.exact = self.exact and reply.exact


class RetryingEmbedder:
    """Embeds rows, with as many requests as it takes. One for all requests of a job.

    Args:
        embed: sends one request.
        clock: monotonic.
        sleep: waits for a number of seconds.
        patience: seconds without a successful request after which the job stops.
        on_wait: called with the error that is waited out, and with `None` when a request succeeds.
    """

    def __init__(
        self,
        embed: Embedder,
        *,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience: float = PATIENCE_SECONDS,
        on_wait: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self._embed = embed
        self._clock = clock
        self._sleep = sleep
        self._patience = patience
        self._on_wait = on_wait
        self._successes = 0
        self._last_success = clock()

    async def __call__(self, rows: Sequence[Row]) -> EmbeddedRows:
        """Embed rows; some of them may fail.

        Raises:
            JobStopped: the job cannot continue.
        """
        result = EmbeddedRows()
        waiting = [rows] if rows else []
        while waiting:
            batch = waiting.pop()
            try:
                texts = [row.text for row in batch]
                result.add(batch, await self._retry(partial(self._embed, texts), is_single=len(batch) == 1))
            except _Rejected as rejected:
                if len(batch) > 1:
                    half = len(batch) // 2
                    waiting += [batch[half:], batch[:half]]  # the first half is sent first
                else:
                    row, error = batch[0], rejected.error
                    result.failed.append(
                        FailedRow(row=row.number, id=row.id, cause=error.cause, message=error.message)
                    )
        return result

    async def model(self) -> Mapping[str, Any]:
        """The facts of the model now; see `Embedder.model`.

        Raises:
            JobStopped: they cannot be fetched.
        """
        try:
            return await self._retry(self._embed.model, is_single=True)
        except _Rejected as rejected:
            raise _stop(rejected.error) from rejected.error

    async def _retry(self, request: Callable[[], Awaitable[T]], *, is_single: bool) -> T:
        """Send a request until it succeeds.

        Args:
            request: sends it.
            is_single: whether it cannot be split.

        Raises:
            _Rejected: one of its texts may be the reason; if it is a single one, it is.
            JobStopped: the job cannot continue.
        """
        before, started, tries, wait = self._successes, self._clock(), 0, _FIRST_WAIT_SECONDS
        while True:
            try:
                reply = await request()
            except HubgateError as error:
                tries += error.cause in _SUSPECT
                others_succeed = self._successes > before
                self._check_retryable(
                    error,
                    is_single=is_single,
                    has_given_up=others_succeed and tries >= _MAX_SUSPECT_TRIES,
                    started=started,
                )
                self._on_wait(error.message)
                await self._sleep(max(wait, min(error.retry_after or 0.0, _MAX_WAIT_SECONDS)))
                wait = min(wait * 2, _MAX_WAIT_SECONDS)
            else:
                self._successes += 1
                self._last_success = self._clock()
                self._on_wait(None)
                return reply

    def _check_retryable(
        self, error: HubgateError, *, is_single: bool, has_given_up: bool, started: float
    ) -> None:
        """Return if the same request should be sent again.

        Raises:
            _Rejected: it should not, but its halves may succeed.
            JobStopped: neither.
        """
        cause = error.cause
        if cause in _REJECTED or has_given_up or (cause in _TIMED_OUT and not is_single):
            raise _Rejected(error)
        if not error.retryable and cause not in _SUSPECT:
            raise _stop(error) from error
        # Time before this request does not count, as while a job reads the rows that are done.
        if self._clock() - max(self._last_success, started) > self._patience:
            raise JobStopped(
                f"No request succeeded for {self._patience / 60:.0f} minutes: {error.message}",
                remedy=error.remedy,
                cause=cause,
            ) from error


def _stop(error: HubgateError) -> JobStopped:
    return JobStopped(error.message, remedy=error.remedy, cause=error.cause)


class _Rejected(Exception):
    def __init__(self, error: HubgateError) -> None:
        super().__init__()
        self.error = error
