"""Slots of shared rate limits from a PostgreSQL server: `hubgate.domain.cluster_ports.Permits`."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import TYPE_CHECKING, Any

import psycopg

from hubgate.domain.cluster_ports import BeatAnswer, SlotAnswer, SlotQuestion
from hubgate.store.cluster.slot_values import beat_answer, microseconds, slot_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.store.postgres import PostgresDatabase

_PATIENCE = 0.5
_TAKE = "SELECT hubgate_take(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
_BEAT = "SELECT hubgate_beat(%s, %s)"
_LEAVE = "DELETE FROM rate_limit_gateways WHERE name = %s RETURNING NULL"


class PostgresPermits:
    """Functions of the database, called on a connection of its own, which never waits for the store.

    One question is asked at a time. One that gets no answer in time is not cancelled, which could take longer: those
    that follow fail until it has ended.
    """

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._asking: asyncio.Task[Any] | None = None

    async def take(self, question: SlotQuestion) -> SlotAnswer:
        values = await self._ask(
            _TAKE,
            question.key,
            question.wanted,
            question.per_window,
            question.burst,
            microseconds(question.window),
            question.known_gateways,
            question.unsure,
            question.was_alone,
            microseconds(question.pause),
            microseconds(question.slow_seconds),
            microseconds(question.slow_step),
        )
        return slot_answer(values)

    async def beat(self, gateway: str, sent_at: float | None) -> BeatAnswer:
        return beat_answer(await self._ask(_BEAT, gateway, microseconds(sent_at or 0.0)))

    async def leave(self, gateway: str) -> None:
        await self._ask(_LEAVE, gateway)

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking}, timeout=_PATIENCE)
        if self._connection is not None:
            await self._connection.close()

    async def _ask(self, statement: str, *arguments: object) -> Sequence[int]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_PATIENCE):
                while self._asking is not None:
                    await asyncio.wait({self._asking})
                execution = self._execute(statement, arguments)
                asking = self._asking = loop.create_task(execution, context=contextvars.Context())
                asking.add_done_callback(self._ended)
                await asyncio.wait({asking})
        except TimeoutError:
            raise self._database.explain(TimeoutError()) from None
        try:
            row: Sequence[int] = asking.result()
        except psycopg.Error as error:
            raise self._database.explain(error) from None
        return row

    def _ended(self, asking: asyncio.Task[Any]) -> None:
        self._asking = None
        if not asking.cancelled():
            asking.exception()  # retrieved, so that asyncio does not report it

    async def _execute(self, statement: str, arguments: Sequence[object]) -> Any:
        if self._connection is None or self._connection.closed:
            self._connection = await self._database.connect()
        try:
            row = await (await self._connection.execute(statement.encode(), arguments)).fetchone()
        except psycopg.Error:
            with contextlib.suppress(psycopg.Error):
                await self._connection.close()
            raise
        return row[0] if row else ()
