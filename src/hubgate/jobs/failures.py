"""What is done when a request of a job fails: ask again, ask in halves, give a row up, or stop the job.

| what failed | what is done |
|---|---|
| a text is refused (empty for the model, too long, not a number in its vector) | halves, down to the row; that one fails |
| the time was too short for so many texts | halves |
| the gate or the model is away or busy | wait, and ask again; the job stops when nothing was answered for a while |
| the server fails on this request, again and again, while it answers others | as if a text were refused |
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
from hubgate.jobs.rows import Embedded, Embedder, Failed, JobStopped, Reply, Row

T = TypeVar("T")
_OWN_FAULT = frozenset(
    {
        Cause.INVALID_REQUEST,
        Cause.INPUT_REFUSED,
        Cause.INPUT_TOO_LONG,
        Cause.BODY_TOO_LARGE,
        Cause.NOT_A_NUMBER,
    }
)
_TOO_MUCH = frozenset({Cause.DEADLINE_EXCEEDED, Cause.UPSTREAM_TIMEOUT})
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
"""It may be the text that does this, or it may not."""
_SUSPECT_TRIES = 5
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
PATIENCE = 600.0
"""Seconds without any answer after which a job stops."""


@dataclass(slots=True)
class Asked:
    """What became of some rows."""

    embedded: Embedded = field(default_factory=lambda: Embedded([], []))
    failed: list[Failed] = field(default_factory=list)
    tokens: int = 0
    exact: bool = True

    def add(self, rows: Sequence[Row], reply: Reply) -> None:
        """Take the vectors of rows."""
        owners = rows
        if reply.counts is not None:
            owners = [row for row, count in zip(rows, reply.counts, strict=True) for _ in range(count)]
        self.embedded.rows.extend(owners)
        self.embedded.pieces.extend(reply.pieces)
        self.tokens += reply.tokens
        self.exact = self.exact and reply.exact


class Asking:
    """Asks for rows, however often it takes. One for all requests of a job.

    Args:
        embed: who is asked.
        clock: monotonic.
        sleep: waits so many seconds.
        patience: seconds without any answer after which the job stops.
        on_wait: told what is waited for, and `None` when it is over.
    """

    def __init__(
        self,
        embed: Embedder,
        *,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        patience: float = PATIENCE,
        on_wait: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self._embed = embed
        self._clock = clock
        self._sleep = sleep
        self._patience = patience
        self._on_wait = on_wait
        self._answers = 0
        self._answered_at = clock()

    async def __call__(self, rows: Sequence[Row]) -> Asked:
        """The vectors of rows, and which of the rows have failed.

        Raises:
            JobStopped: the job cannot go on.
        """
        asked = Asked()
        waiting = [rows] if rows else []
        while waiting:
            some = waiting.pop()
            try:
                texts = [row.text for row in some]
                asked.add(some, await self._until_answered(partial(self._embed, texts), alone=len(some) == 1))
            except _Refused as refused:
                if len(some) > 1:
                    half = len(some) // 2
                    waiting += [some[half:], some[:half]]  # the first half is asked first
                else:
                    error = refused.error
                    asked.failed.append(
                        Failed(row=some[0].number, id=some[0].id, cause=error.cause, message=error.message)
                    )
        return asked

    async def model(self) -> Mapping[str, Any]:
        """What the model is now.

        Raises:
            JobStopped: it cannot be asked.
        """
        try:
            return await self._until_answered(self._embed.model, alone=True)
        except _Refused as refused:
            raise _stop(refused.error) from refused.error

    async def _until_answered(self, ask: Callable[[], Awaitable[T]], *, alone: bool) -> T:
        """One request, again and again.

        Args:
            ask: makes the request.
            alone: whether it cannot be made smaller.

        Raises:
            _Refused: what it is about may be why; of one that is alone, it is.
            JobStopped: the job cannot go on.
        """
        before, begun, tries, wait = self._answers, self._clock(), 0, _FIRST_WAIT
        while True:
            try:
                reply = await ask()
            except HubgateError as error:
                tries += error.cause in _SUSPECT
                others = self._answers > before
                self._judge(error, alone=alone, given_up=others and tries >= _SUSPECT_TRIES, begun=begun)
                self._on_wait(error.message)
                await self._sleep(max(wait, min(error.retry_after or 0.0, _LONGEST_WAIT)))
                wait = min(wait * 2, _LONGEST_WAIT)
            else:
                self._answers += 1
                self._answered_at = self._clock()
                self._on_wait(None)
                return reply

    def _judge(self, error: HubgateError, *, alone: bool, given_up: bool, begun: float) -> None:
        """Return if it is worth to ask the same again.

        Raises:
            _Refused: no, but it may be in halves.
            JobStopped: no.
        """
        cause = error.cause
        if cause in _OWN_FAULT or given_up or (cause in _TOO_MUCH and not alone):
            raise _Refused(error)
        if not error.retryable and cause not in _SUSPECT:
            raise _stop(error) from error
        # Before it was asked, as while rows that are done were read, no answer was owed.
        if self._clock() - max(self._answered_at, begun) > self._patience:
            raise JobStopped(
                f"Nothing was answered for {self._patience / 60:.0f} minutes: {error.message}",
                remedy=error.remedy,
                cause=cause,
            ) from error


def _stop(error: HubgateError) -> JobStopped:
    return JobStopped(error.message, remedy=error.remedy, cause=error.cause)


class _Refused(Exception):
    def __init__(self, error: HubgateError) -> None:
        super().__init__()
        self.error = error
