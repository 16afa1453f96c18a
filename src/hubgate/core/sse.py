"""Parsing text/event-stream: from chunks of bytes to the payloads of complete events.

Only `data` matters: model servers send everything in it, including errors. Comments, `event:` and `id:` are ignored.
"""

from __future__ import annotations

from hubgate.domain.errors import UpstreamUnreadable

MAX_EVENT_BYTES = 16 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DONE = b"[DONE]"


class SseParser:
    """Parses one stream.

    Chunks of whole one-line events, which nearly all are, are parsed with one split; others line by line.

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

    def feed(self, chunk: bytes) -> list[bytes]:
        """The payloads of the events that end in this chunk, without empty ones and without `[DONE]`.

        Raises:
            UpstreamUnreadable: an event is larger than the bound.
        """
        if b"\r" in chunk or self._after_return:
            chunk = self._normalize_line_ends(chunk)
        pieces = self._pieces
        if not pieces and chunk[:6] == b"data: " and chunk[-2:] == b"\n\n" and not self.done:
            payloads = chunk[6:-2].split(b"\n\ndata: ")
            if b"\n" not in b"".join(payloads):
                self._first = False
                return self._until_done(payloads)
        if b"\n\n" not in chunk and not (pieces and pieces[-1].endswith(b"\n") and chunk.startswith(b"\n")):
            self._keep(chunk)
            return []
        if pieces:
            pieces.append(chunk)
            chunk = b"".join(pieces)
        *events, unfinished = chunk.split(b"\n\n")
        self._pieces, self._size = [], 0
        self._keep(unfinished)
        return self._payloads(events)

    def end(self) -> list[bytes]:
        """The payload of a last event without its empty line, at the end of a stream that ended cleanly."""
        event, self._pieces, self._size = b"".join(self._pieces), [], 0
        return self._payloads([event])

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
        if self._size > self._max_event_bytes:
            raise UpstreamUnreadable(
                f"The server sent one event of more than {self._max_event_bytes} bytes.",
                remedy="Check the server's log: models do not generate that much at once.",
            )

    def _payloads(self, events: list[bytes]) -> list[bytes]:
        if self._first and events:
            self._first = False
            events[0] = events[0].removeprefix(_BYTE_ORDER_MARK)
        payloads = [
            event[6:] if event[:6] == b"data: " and b"\n" not in event else _data(event) for event in events
        ]
        return [] if self.done else self._until_done(payloads)

    def _until_done(self, payloads: list[bytes]) -> list[bytes]:
        if _DONE in payloads:
            self.done = True
            del payloads[payloads.index(_DONE) :]
        return [payload for payload in payloads if payload] if b"" in payloads else payloads

    def _normalize_line_ends(self, chunk: bytes) -> bytes:
        if self._after_return and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_return = False
        if chunk:
            self._after_return = chunk.endswith(b"\r")
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _data(event: bytes) -> bytes:
    """The data lines of an event, without the space after the colon."""
    lines = [line.partition(b":") for line in event.split(b"\n")]
    return b"\n".join(value.removeprefix(b" ") for name, _, value in lines if name == b"data")
