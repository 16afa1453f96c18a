"""Reacts to failed requests of a job: retries them, splits them, gives up on a row, or stops the job.

| failure | reaction |
|---|---|
| a text is rejected (empty for the model, too long, NaN in its vector) | split the request in half until a single row is left, which fails |
| a request with several texts timed out | split it in half |
| hubgate or the model is unavailable or busy | wait and retry; stop the job if no request succeeds for `patience` seconds |
| the server fails repeatedly on this request, but answers others | as for a rejected text |
| anything else (another model, a wrong token, an unknown endpoint, …) | stop the job |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from hubgate.domain.errors import Cause, HubgateError
from hubgate.domain.ports import Clock
from hubgate.features.bulk.engine.rows import Embedded, Embedder, FailedRow, JobStopped, Reply, Row

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
        Cause.DIMENSIONS_CHANGED,
        Cause.RUNTIME_CRASHED,
        Cause.INTERNAL,
    }
)
"""Causes that may be the fault of a text, or of the server."""
_MAX_SUSPECT_TRIES = 5
_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS = 0.5, 30.0
PATIENCE_SECONDS = 600.0


@dataclass(slots=True)
class EmbeddedRows:
    """The results for some rows, from one or several requests."""

    embedded: Embedded = field(default_factory=lambda: Embedded([], []))
    failed: list[FailedRow] = field(default_factory=list)
    tokens: int = 0
    exact: bool = True

    def add(self, rows: Sequence[Row], reply: Reply) -> None:
        row_of_piece = rows
        if reply.counts is not None:
            row_of_piece = [row for row, count in zip(rows, reply.counts, strict=True) for _ in range(count)]
        self.embedded.rows.extend(row_of_piece)
        self.embedded.pieces.extend(reply.pieces)
        self.tokens += reply.tokens
        self.exact = self.exact and reply.exact


class RetryingEmbedder:
    """Embeds rows, with as many requests as necessary. A job uses one instance for all its requests.

    Args:
        embed: sends one request.
        clock: monotonic.
        sleep: waits for a number of seconds.
        patience: seconds without a successful request after which the job stops.
        on_wait: called with the error message before each wait, and with `None` when a request succeeds.
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
        """Embed rows. Rows that fail are part of the result.

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
        """The current facts of the model: see `Embedder.model`.

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
            is_single: whether it has only one text, so that it cannot be split.

        Raises:
            _Rejected: one of its texts may be at fault. With `is_single`, it is.
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
        """Raise, unless the same request should be sent again.

        Raises:
            _Rejected: the request should be split, or its only row fails.
            JobStopped: the job cannot continue.
        """
        cause = error.cause
        if cause in _REJECTED or has_given_up or (cause in _TIMED_OUT and not is_single):
            raise _Rejected(error)
        if not error.retryable and cause not in _SUSPECT:
            raise _stop(error) from error
        # The time before this request does not count: a job may have spent it on reading finished rows.
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
