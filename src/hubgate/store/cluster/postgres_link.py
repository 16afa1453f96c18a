"""One connection to a PostgreSQL server for short questions, beside those of the store.

Gateways ask a few each second, and calls wait for some. psycopg's own cursors take several times the CPU time: so this
drives libpq itself, by psycopg's bindings, and psycopg only makes the connection.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

    from hubgate.store.postgres import PostgresDatabase

PATIENCE = 0.5
_DONE = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})

Argument: TypeAlias = str | int | float | bool
Rows: TypeAlias = Sequence[Sequence[str]]


class PostgresLink:
    """A connection of its own, which never waits for the store. It is opened by the first question.

    One question is asked at a time. One that gets no answer in time is not cancelled, which could take longer: those
    that follow fail until it has ended.

    Args:
        database: the server.
        patience: seconds after which a question fails. It may have been executed nevertheless.
        channel: whose notifications it listens to, if any.
        on_notify: called when it listens, then after each notification. It may miss some.
    """

    def __init__(
        self,
        database: PostgresDatabase,
        patience: float = PATIENCE,
        *,
        channel: str = "",
        on_notify: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._patience = patience
        self._channel = channel
        self._on_notify = on_notify
        self._waiting: deque[_Question] = deque()
        self._asked: _Question | None = None
        """The question that the server works on."""
        self._results: list[PGresult] = []
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._socket = -1
        self._connecting: asyncio.Task[None] | None = None

    async def ask(self, statement: str, *arguments: Argument) -> Rows:
        """Execute a statement as a transaction; returns its rows as text.

        Args:
            statement: in which $1 stands for the first argument.
            arguments: in the order of their numbers.

        Raises:
            StoreFailed: the statement timed out or failed.
        """
        loop = asyncio.get_running_loop()
        question = _Question(statement, arguments, loop.create_future())
        self._waiting.append(question)
        self._ask_next()
        timer = loop.call_later(self._patience, question.fail, TimeoutError())
        try:
            return await question.answer
        except (psycopg.Error, TimeoutError) as error:
            raise self._database.explain(error) from None
        finally:
            timer.cancel()

    async def close(self) -> None:
        """Close the connection. Questions that wait fail."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        self._lose(psycopg.OperationalError("closed"))

    def _ask_next(self) -> None:
        """Ask the next question that somebody waits for."""
        while self._waiting and self._waiting[0].answer.done():
            self._waiting.popleft()
        if not self._waiting or self._asked is not None or self._connecting is not None:
            return
        if self._connection is None:
            # In a context of its own: it does not belong to the caller that happens to start it.
            loop = asyncio.get_running_loop()
            self._connecting = loop.create_task(self._connect(), context=contextvars.Context())
            return
        self._asked = self._waiting.popleft()
        try:
            self._asked.send(self._connection.pgconn)
            self._flush(self._connection.pgconn)
        except psycopg.Error as error:
            self._lose(error)

    async def _connect(self) -> None:
        try:
            connection = self._connection = await self._database.connect()
        except psycopg.Error as error:
            self._fail_waiting(error)
            return
        finally:
            self._connecting = None
        loop = asyncio.get_running_loop()
        self._socket = connection.pgconn.socket
        loop.add_reader(self._socket, self._read, connection.pgconn)
        if self._channel:
            listen = _Question(f"LISTEN {self._channel}", (), loop.create_future())
            listen.answer.add_done_callback(self._listens)
            self._waiting.appendleft(listen)
        self._ask_next()

    def _listens(self, answer: asyncio.Future[Rows]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._on_notify()

    def _flush(self, connection: PGconn) -> None:
        if connection.flush():  # the server does not read: the rest is sent later
            asyncio.get_running_loop().add_writer(self._socket, self._flush_rest, connection)

    def _flush_rest(self, connection: PGconn) -> None:
        asyncio.get_running_loop().remove_writer(self._socket)
        try:
            self._flush(connection)
        except psycopg.Error as error:
            self._lose(error)

    def _read(self, connection: PGconn) -> None:
        """Receive what the server sends: results, notifications, the end of the connection."""
        notified = False
        try:
            connection.consume_input()
            while connection.notifies() is not None:
                notified = True
            while self._asked is not None and not connection.is_busy():
                result = connection.get_result()
                if result is None:
                    self._answer()
                else:
                    self._results.append(result)
        except psycopg.Error as error:
            self._lose(error)
        if notified:
            self._on_notify()

    def _answer(self) -> None:
        asked, results = self._asked, self._results
        self._asked, self._results = None, []
        if asked is not None:
            asked.receive(results)
        self._ask_next()

    def _lose(self, error: psycopg.Error) -> None:
        """Close the connection. The next question makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            connection.pgconn.finish()
        asked, self._asked, self._results = self._asked, None, []
        if asked is not None:
            asked.fail(error)
        self._fail_waiting(error)

    def _fail_waiting(self, error: psycopg.Error) -> None:
        while self._waiting:
            self._waiting.popleft().fail(error)


def integers(array: str) -> Iterator[int]:
    """The elements of an array as PostgreSQL writes it: `{1,2}`."""
    return map(int, array[1:-1].split(","))


class _Question:
    """A statement, and the future of its rows."""

    def __init__(self, statement: str, arguments: Sequence[Argument], answer: asyncio.Future[Rows]) -> None:
        self._statement = statement.encode()
        self._arguments = arguments
        self.answer = answer

    def send(self, connection: PGconn) -> None:
        connection.send_query_params(self._statement, [str(value).encode() for value in self._arguments])

    def receive(self, results: Sequence[PGresult]) -> None:
        failed = next((result for result in results if result.status not in _DONE), None)
        if failed is not None:
            self.fail(error_from_result(failed))
        elif not self.answer.done():
            self.answer.set_result(_rows(results[-1]))

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


def _rows(result: PGresult) -> Rows:
    columns = range(result.nfields)
    return [
        [(result.get_value(row, column) or b"").decode() for column in columns]
        for row in range(result.ntuples)
    ]
