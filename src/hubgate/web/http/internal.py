"""Requests of the gateway itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from hubgate.domain.records import Key


class RowReply(NamedTuple):
    """The gateway's response to one request of a batch."""

    status: int
    body: bytes
    cause: str
    """`ok`, or a `Cause`."""
    retry_after: float | None
    release: Callable[[], None] = lambda: None
    """To be called when the body is not needed any more: until then, it counts as memory of replies."""


RowCaller: TypeAlias = Callable[[Key, str, bytes, str], Awaitable[RowReply]]
"""Sends a POST through the same code as requests of clients, with the rights and the limits of a key, in the class `bulk`.

Its arguments are the key, the path, the body and the request id. Errors are responses, too.
"""
