"""Commands to a Valkey or Redis server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hubgate.domain.errors import StoreFailed

try:
    from redis import exceptions as refused
    from redis.exceptions import RedisError
except ImportError as missing:
    raise StoreFailed(
        "HUBGATE_CACHE_URL needs the package redis, which is not installed.",
        remedy='Run: pip install "hubgate[scale]"',
    ) from missing

from hubgate.store.vectors.valkey_url import read_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

KEY_PREFIX: Final = b"{hg}:"
"""Of all keys. On a cluster, keys with the same hash tag are on the same server."""
_LOST_SECONDS = 2.0
"""A connection whose server does not answer for so long is closed."""
_MAX_CONNECTIONS = 8

Argument: TypeAlias = bytes | str | int | float
Command: TypeAlias = tuple[Argument, ...]


class Valkey:
    """A server. No command is repeated by itself: what to do after a failure is for the caller to know.

    Args:
        url: of the server.

    Raises:
        InvalidSetting: the URL is invalid.
    """

    def __init__(self, url: str) -> None:
        self.name, self._pool, self._sentinels = read_url(url)
        self._free = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._exchanges: set[asyncio.Task[Sequence[Any]]] = set()

    async def commands(self, commands: Iterable[Command], *, patience: float) -> Sequence[Any]:
        """Execute commands one after the other in one exchange; other commands may come between.

        Args:
            commands: their arguments.
            patience: seconds after which they fail. They may have been executed nevertheless. The connection is kept, or
                goes on being opened.

        Returns:
            Their replies, with strings as bytes.

        Raises:
            StoreFailed: the server cannot be reached, does not answer in time, or refuses one of them. Those after it
                were executed nevertheless.
        """
        exchange = asyncio.create_task(self._exchange(list(commands)))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._over)
        try:
            async with asyncio.timeout(patience):
                replies = await asyncio.shield(exchange)
        except (RedisError, OSError, TimeoutError) as error:
            raise self._failure(error) from None
        failed = next((reply for reply in replies if isinstance(reply, Exception)), None)
        if failed is not None:
            raise self._failure(failed)
        return replies

    async def close(self) -> None:
        """Close the connections. Commands that wait fail."""
        for exchange in self._exchanges:
            exchange.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        await self._pool.aclose()
        for sentinel in self._sentinels:
            await sentinel.aclose()

    async def _exchange(self, commands: Sequence[Command]) -> Sequence[Any]:
        """A command that is refused has its error as its reply."""
        async with asyncio.timeout(_LOST_SECONDS), self._free:
            connection = await self._pool.get_connection()
            try:
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                return [await _reply(connection.read_response) for _ in commands]
            except BaseException:  # replies may be outstanding
                await connection.disconnect(nowait=True)
                raise
            finally:
                await self._pool.release(connection)

    def _over(self, exchange: asyncio.Task[Sequence[Any]]) -> None:
        self._exchanges.discard(exchange)
        if not exchange.cancelled():
            exchange.exception()  # retrieved, so that asyncio does not report it

    def _failure(self, error: Exception) -> StoreFailed:
        problem, remedy, retryable = next(words for kinds, words in _FAILURES if isinstance(error, kinds))
        return StoreFailed(
            f"The Valkey server {self.name} {problem.format(error=_code(error))}.",
            remedy=remedy,
            retryable=retryable,
        )


async def _reply(read: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await read()
    except refused.ReadOnlyError:  # the server is a replica now: another connection leads to the primary
        raise
    except refused.ResponseError as error:
        return error


def _code(error: Exception) -> str:
    """The first word of the server's error. What follows may repeat arguments."""
    code = str(error).partition(" ")[0]
    return code if code.isascii() and code.isupper() else type(error).__name__


_CREDENTIALS = (
    "rejects the user or the password",
    "Correct HUBGATE_CACHE_URL; special characters in the password must be percent-encoded.",
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
            "Point HUBGATE_CACHE_URL to the primary server or to its Sentinels.",
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
        ("cannot be reached", "Check that it is running and that HUBGATE_CACHE_URL is right.", True),
    ),
)
