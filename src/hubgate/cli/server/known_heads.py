"""Heads that clients repeat: a request with a known head is neither parsed again, nor is what follows from it worked out again."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import msgspec

from hubgate.web.http.asgi import Scope
from hubgate.web.http.head import HEAD

_MAX_HEADS = 1024
_MAX_REQUEST_BYTES = 64 * 1024
_LENGTHS = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_OF_HEAD = (
    "asgi",
    "headers",
    "http_version",
    "method",
    "path",
    "query_string",
    "raw_path",
    "root_path",
    "type",
)


class Found(msgspec.Struct, frozen=True, eq=False):
    digest: bytes
    body: bytes
    scope: Scope | None
    """For a request with this head; `None` if it is not known."""


class KnownHeads:
    """The scopes of requests by their heads, for those that arrive whole and differ only in their `Content-Length`.

    No head is kept, since it has a key: only its keyed hash, and what the guard has found to be public. A request is
    recognised by all bytes of its head, and by a `Content-Length` that is exactly the number of bytes after it, so it
    cannot be read in another way than the parser has read the first one.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._scopes: dict[bytes, dict[str, Any]] = {}

    def find(self, data: bytes) -> Found | None:
        """Find the head of a request that is all of `data`. `None` if it does not look like one."""
        if len(data) > _MAX_REQUEST_BYTES:
            return None
        head, _, body = data.partition(b"\r\n\r\n")
        for name in _LENGTHS:
            before, found, after = head.partition(b"%b%d" % (name, len(body)))
            if found and (not after or after.startswith(b"\r\n")):
                # No valid head has a zero byte, so no other head has the same parts.
                parts = b"%b%b\0%b" % (before, name, after)
                digest = hashlib.blake2b(parts, digest_size=16, key=self._secret).digest()
                known = self._scopes.get(digest)
                return Found(digest, body, known and known.copy())
        return None

    def remember(self, digest: bytes, scope: Scope) -> None:
        """Remember the head of a request if the guard lets others have it: see `HEAD`."""
        if HEAD not in scope or digest in self._scopes:
            return
        if len(self._scopes) >= _MAX_HEADS:
            del self._scopes[next(iter(self._scopes))]
        head = scope[HEAD].of_any_length()
        self._scopes[digest] = {**{name: scope[name] for name in _OF_HEAD}, "scheme": "http", HEAD: head}
