"""A connection to a Valkey or Redis server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import deque
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from hubgate.domain.errors import StoreFailed

try:
    from redis import exceptions as refused
    from redis.exceptions import RedisError
except ImportError as missing:
    raise StoreFailed(
        "HUBGATE_VALKEY_URL and HUBGATE_CACHE_URL need the package redis, which is not installed.",
        remedy='Run: pip install "hubgate[scale]"',
    ) from missing

from hubgate.store.valkey.urls import read_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio.connection import AbstractConnection

KEY_PREFIX: Final = b"{hg}:"
"""Of all keys. On a cluster, keys with the same hash tag are on the same server, so that a script may use several."""
GATEWAYS_HEARD: Final = KEY_PREFIX + b"gateways heard"
SERVER: Final = KEY_PREFIX + b"server"
"""What several scripts know: when each gateway was heard last, and which server this is."""
_CONNECT_SECONDS = 2.0
_LOST_SECONDS = 2.0
"""A connection whose server does not answer for so long is closed."""
_IDLE_SECONDS = 0.5
"""A connection that was idle for so long may have been closed by the server."""
_MOST_AT_ONCE = 256
"""Commands sent together."""

_log = logging.getLogger(__name__)


class RunId:
    """An argument that stands for the `run_id` of the server that executes the command.

    It changes when the server is restarted and when another one takes over: then the data in memory may be lost.
    """


RUN_ID: Final = RunId()
Argument: TypeAlias = bytes | str | int | float | RunId
_Asked: TypeAlias = "tuple[tuple[Argument, ...], asyncio.Future[Any]]"


class Script:
    """A Lua script, which the server executes as a whole."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def read(cls, name: str) -> Self:
        """The script in a file of this package."""
        return cls(files(__package__).joinpath(name).read_text(encoding="utf-8"))


class ValkeyConnection:
    """One connection for all commands of a part. It is opened by the first command, and again after a failure.

    Commands that wait while others are executed are sent together. No command is repeated by itself: what to do after
    a failure is for the caller to know. Cancelling one does not harm the others.

    Args:
        url: of the server.
        setting: the name of the setting that the URL is from, for messages.
        patience: seconds after which a command fails. It may have been executed nevertheless.

    Raises:
        InvalidSetting: the URL is invalid.
    """

    def __init__(self, url: str, setting: str, *, patience: float = 0.5) -> None:
        self._server = read_url(url, setting)
        self._patience = patience
        self._waiting: deque[_Asked] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._connection: AbstractConnection | None = None
        self._run_id = b""
        self._last_reply = 0.0

    @property
    def name(self) -> str:
        """The server's address, without credentials."""
        return self._server.name

    async def command(self, *arguments: Argument) -> Any:
        """Execute a command; returns its reply with strings as bytes.

        Raises:
            StoreFailed: the server cannot be reached, does not answer in time, or refuses the command.
        """
        (reply,) = await self.commands([arguments])
        return reply

    async def commands(self, commands: Iterable[tuple[Argument, ...]]) -> Sequence[Any]:
        """Execute commands one after the other in one exchange; other commands may come between.

        Raises:
            StoreFailed: one of them failed. Those after it were executed nevertheless.
        """
        try:
            return await self._exchange(commands)
        except (RedisError, OSError, TimeoutError) as error:
            raise self._failure(error) from None

    async def run(self, script: Script, keys: Sequence[bytes], *arguments: Argument) -> Any:
        """Execute a script; returns its reply.

        Raises:
            StoreFailed: as `command`.
        """
        rest = (len(keys), *keys, *arguments)
        try:
            try:
                (reply,) = await self._exchange([("EVALSHA", script.digest, *rest)])
            except refused.NoScriptError:  # the server was restarted
                (reply,) = await self._exchange([("EVAL", script.source, *rest)])
        except (RedisError, OSError, TimeoutError) as error:
            raise self._failure(error) from None
        return reply

    async def close(self) -> None:
        """Close the connection. Commands that wait fail."""
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        self._fail_waiting(refused.ConnectionError("closed"))
        await self._disconnect()

    async def _exchange(self, commands: Iterable[tuple[Argument, ...]]) -> Sequence[Any]:
        loop = asyncio.get_running_loop()
        futures = []
        for arguments in commands:
            future = loop.create_future()
            self._waiting.append((arguments, future))
            futures.append(future)
        if self._pump is None:
            self._pump = loop.create_task(self._serve())
        try:
            async with asyncio.timeout(self._patience):
                return [await future for future in futures]
        finally:
            for future in futures:
                if not future.cancel() and not future.cancelled():
                    future.exception()  # retrieved, so that asyncio does not report it

    async def _serve(self) -> None:
        """Send what waits until nothing does."""
        batch: list[_Asked] = []
        try:
            while self._waiting:
                connection = await self._connected()
                batch = self._next_batch()
                async with asyncio.timeout(_LOST_SECONDS):
                    await self._send(connection, batch)
        except Exception as error:  # noqa: BLE001 - of any kind: the callers raise it
            await self._disconnect()
            _fail(batch, error)
            self._fail_waiting(error)
        finally:
            self._pump = None

    def _next_batch(self) -> list[_Asked]:
        batch: list[_Asked] = []
        while self._waiting and len(batch) < _MOST_AT_ONCE:
            arguments, future = self._waiting.popleft()
            if not future.done():  # its caller has not given up
                batch.append((arguments, future))
        return batch

    async def _send(self, connection: AbstractConnection, batch: Sequence[_Asked]) -> None:
        packed = connection.pack_commands([self._filled(arguments) for arguments, _ in batch])
        await connection.send_packed_command(packed, check_health=False)
        for _, future in batch:
            try:
                reply = await connection.read_response()
            except refused.ReadOnlyError:  # the server is a replica now
                raise
            except refused.ResponseError as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(reply)
        self._last_reply = asyncio.get_running_loop().time()

    def _filled(self, arguments: tuple[Argument, ...]) -> tuple[bytes | str | int | float, ...]:
        return tuple(self._run_id if isinstance(one, RunId) else one for one in arguments)

    async def _connected(self) -> AbstractConnection:
        now = asyncio.get_running_loop().time()
        if self._connection is not None and now - self._last_reply > _IDLE_SECONDS:
            try:
                is_usable = not await self._connection.can_read()
            except (RedisError, OSError):
                is_usable = False
            if not is_usable:
                await self._disconnect()
        if self._connection is None:
            async with asyncio.timeout(_CONNECT_SECONDS):
                self._connection = await self._server.connect()
                await self._greet(self._connection)
        return self._connection

    async def _greet(self, connection: AbstractConnection) -> None:
        await connection.send_command("INFO", "server", check_health=False)
        reply = await connection.read_response()
        if not isinstance(reply, bytes):
            raise refused.ConnectionError("an unexpected reply")
        lines = reply.splitlines()
        self._run_id = next(
            (line.partition(b":")[2] for line in lines if line.startswith(b"run_id:")), b"unknown"
        )
        _log.info("connected to the Valkey server %s", self.name)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    def _fail_waiting(self, error: Exception) -> None:
        _fail(self._waiting, error)
        self._waiting.clear()

    def _failure(self, error: Exception) -> StoreFailed:
        problem, remedy, retryable = next(words for kinds, words in _FAILURES if isinstance(error, kinds))
        return StoreFailed(
            f"The Valkey server {self.name} {problem.format(error=_code(error))}.",
            remedy=remedy.format(setting=self._server.setting),
            retryable=retryable,
        )


def _fail(commands: Iterable[_Asked], error: Exception) -> None:
    for _, future in commands:
        if not future.done():
            future.set_exception(error)


def _code(error: Exception) -> str:
    """The first word of the server's error. What follows may repeat arguments."""
    code = str(error).partition(" ")[0]
    return code if code.isascii() and code.isupper() else type(error).__name__


_CREDENTIALS = (
    "rejects the user or the password",
    "Correct {setting}; special characters in the password must be percent-encoded.",
    False,
)
_FAILURES: tuple[tuple[tuple[type[Exception], ...], tuple[str, str, bool]], ...] = (
    ((refused.AuthenticationError,), _CREDENTIALS),
    (
        (refused.NoPermissionError,),
        (
            "refuses a command to hubgate's user",
            "Allow its user all commands but those of administration.",
            False,
        ),
    ),
    ((refused.BusyLoadingError,), ("is starting", "Try again in a moment.", True)),
    (
        (refused.ReadOnlyError,),
        (
            "is a replica, which is read-only",
            "Point {setting} to the primary server or to its Sentinels.",
            True,
        ),
    ),
    ((refused.OutOfMemoryError,), ("is out of memory", "Raise maxmemory of the server.", True)),
    (
        (TimeoutError, refused.TimeoutError),
        ("did not answer in time", "Check the load of the server and the network to it.", True),
    ),
    (
        (refused.ResponseError,),
        ("refused a command ({error})", "Check that it is Valkey, or Redis 6.2 or newer.", False),
    ),
    (
        (Exception,),
        ("cannot be reached", "Check that it is running and that {setting} is right.", True),
    ),
)
