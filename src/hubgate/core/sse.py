"""Parsing text/event-stream: from chunks of bytes to the payloads of complete events.

Only `data` matters: model servers send everything in it, including errors. Comments, `event:` and `id:` are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from hubgate.domain.errors import UpstreamUnreadable

MAX_EVENT_BYTES = 16 * 1024 * 1024
DATA = b"data: "
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DONE = b"[DONE]"
_DONE_EVENT = b"data: [DONE]\n\n"
_CARRIAGE_RETURN = 13
"""A number, and `find` elsewhere: to look for bytes with `in`, Python 3.11 makes and discards an exception each time."""


class PlainEvents(Sequence[bytes]):
    """The payloads of one-line events that are JSON objects, as nearly all are.

    They stay one text, because most are passed on as they came. They are split when someone looks at one.

    Args:
        text: the events, each with its empty line.
        size: how many they are.
        before: what precedes each payload: `data: ` or `data:`.
    """

    __slots__ = ("_payloads", "before", "size", "text")

    def __init__(self, text: bytes, size: int, before: bytes = DATA) -> None:
        self.text = text
        self.before = before
        self.size = size
        self._payloads: list[bytes] | None = None

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._split())

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        return self._split()[index]

    def _split(self) -> list[bytes]:
        if self._payloads is None:
            self._payloads = self.text[len(self.before) : -2].split(b"\n\n" + self.before)
        return self._payloads


class SseParser:
    """Parses one stream.

    Args:
        max_event_bytes: an event that is larger is an error.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._pieces: list[bytes] = []
        """The pieces of an unfinished event."""
        self._size = 0
        self._first = True
        self._after_return = False
        self.done = False
        """Whether `[DONE]` was received; what follows it is ignored."""

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """The payloads of the events that end in this chunk, without empty ones and without `[DONE]`.

        Raises:
            UpstreamUnreadable: an event is larger than the bound.
        """
        if _CARRIAGE_RETURN in chunk or self._after_return:
            chunk = self._normalize_line_ends(chunk)
        if self._pieces or chunk[-2:] != b"\n\n":
            chunk = self._take_whole(chunk)
        return self._payloads(chunk) if chunk and not self.done else []

    def end(self) -> list[bytes]:
        """The payload of a last event without its empty line, at the end of a stream that ended cleanly."""
        text, self._pieces, self._size = b"".join(self._pieces), [], 0
        return [*self._payloads(text + b"\n\n")] if text and not self.done else []

    def _take_whole(self, chunk: bytes) -> bytes:
        """The whole events, with the pieces before; what is unfinished is kept."""
        pieces = self._pieces
        end = chunk.rfind(b"\n\n") + 2
        if end < 2:
            if not (pieces and pieces[-1][-1:] == b"\n" and chunk[:1] == b"\n"):
                self._keep(chunk)
                return b""
            end = 1
        pieces.append(chunk[:end])
        text = b"".join(pieces)
        self._pieces, self._size = [], 0
        self._keep(chunk[end:])
        return text

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
        if self._size > self._max_event_bytes:
            raise UpstreamUnreadable(
                f"The server sent one event of more than {self._max_event_bytes} bytes.",
                remedy="Check the server's log: models do not generate that much at once.",
            )

    def _payloads(self, text: bytes) -> Sequence[bytes]:
        """The payloads of events, each with its empty line."""
        if self._first:
            self._first = False
            text = text.removeprefix(_BYTE_ORDER_MARK)
        if text[-len(_DONE_EVENT) :] != _DONE_EVENT:
            plain = _plain_events(text)
        elif len(text) == len(_DONE_EVENT):
            self.done = True
            return []
        else:
            plain = _plain_events(text[: -len(_DONE_EVENT)])
            self.done = plain is not None
        if plain is not None:
            return plain
        payloads = [
            event[6:] if event[:6] == DATA and event.find(b"\n") < 0 else _data(event)
            for event in text[:-2].split(b"\n\n")
        ]
        if _DONE in payloads:
            self.done = True
            del payloads[payloads.index(_DONE) :]
        return [payload for payload in payloads if payload]

    def _normalize_line_ends(self, chunk: bytes) -> bytes:
        if self._after_return and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_return = False
        if chunk:
            self._after_return = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _plain_events(text: bytes) -> PlainEvents | None:
    """The events, if all of them are plain."""
    if text[-2:] != b"\n\n":
        return None
    if text[:7] == b"data: {":
        before, count = DATA, text.count(b"\n\ndata: {") + 1
    elif text[:6] == b"data:{":  # as text-generation-inference writes
        before, count = b"data:", text.count(b"\n\ndata:{") + 1
    else:
        return None
    # Then every line break is part of an empty line between two events, or of the last one. They are counted without
    # `count`, which looks at one byte after the other.
    line_breaks = len(text) - len(text.replace(b"\n", b""))
    return PlainEvents(text, count, before) if line_breaks == 2 * count else None


def _data(event: bytes) -> bytes:
    """The data lines of an event, without the space after the colon."""
    lines = [line.partition(b":") for line in event.split(b"\n")]
    return b"\n".join(value.removeprefix(b" ") for name, _, value in lines if name == b"data")
