"""Heads of replies that a server repeats: they are recognised by their bytes and not parsed again."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_BEGIN, _END = b"HTTP/1.1 200 ", b"\r\n\r\n"
_LENGTHS = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_MAX_DIGITS = 15
_MAX_MISSED = 16
"""After this number of unknown heads in a row, only every 16th head is remembered."""


class KnownHead(msgspec.Struct, frozen=True, eq=False):
    """A head with status 200, which differs from others only in its `Content-Length`."""

    before: bytes
    """Up to the number of `Content-Length`."""
    after: bytes
    """From the end of the number."""
    fields: Mapping[bytes, bytes]

    def find(self, data: bytes) -> tuple[Mapping[bytes, bytes], bytes, bytes] | None:
        """The fields, the number, and what there is of the body, if `data` begins with this head."""
        before, after = self.before, self.after
        if not data.startswith(before):
            return None
        start = len(before)
        end = data.find(after, start, start + _MAX_DIGITS + len(after))
        number = data[start:end]
        found = end > 0 and number.isdigit()
        return (self.fields, number, data[end + len(after) :]) if found else None


class LastHead:
    """The head of the last reply to requests that have the same method and URL."""

    def __init__(self) -> None:
        self.known: KnownHead | None = None
        self._missed = 0
        """How many replies in a row had another head."""

    def find(self, data: bytes) -> tuple[Mapping[bytes, bytes], bytes, bytes] | None:
        """See `KnownHead.find`."""
        found = None if self.known is None else self.known.find(data)
        if found is not None:
            self._missed = 0
        return found

    def note(self, data: bytes, fields: Mapping[bytes, bytes]) -> None:
        """Remember a head, unless the heads of this server all differ, for example by a request id."""
        missed, self._missed = self._missed, self._missed + 1
        if missed < _MAX_MISSED or missed % _MAX_MISSED == 0:
            self.known = head_to_repeat(data, fields)


def head_to_repeat(data: bytes, fields: Mapping[bytes, bytes]) -> KnownHead | None:
    """The head with which `data` begins, if it frames its body by `Content-Length` alone.

    Args:
        data: the first bytes of a reply.
        fields: what the parser has read from them.
    """
    number = fields.get(b"content-length", b"")
    end = data.find(_END)
    if not data.startswith(_BEGIN) or end < 0 or not number.isdigit() or b"transfer-encoding" in fields:
        return None
    for name in _LENGTHS:
        before, found, after = data[: end + len(_END)].partition(b"%b%b\r\n" % (name, number))
        if found:
            return KnownHead(before + name, b"\r\n" + after, dict(fields))
    return None
