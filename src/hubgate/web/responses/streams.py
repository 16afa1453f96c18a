"""Streams of a response: made of the chunks of a chat, or passed on from a server with a route of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from hubgate.core.transcoding import decode_reply
from hubgate.core.transcoding.objects import FIELDS_DECODER, Usage
from hubgate.core.transcoding.text_runs import TextRun
from hubgate.domain.errors import HubgateError
from hubgate.web.responses.items import Event, TextItem
from hubgate.web.responses.writer import ResponseWriter, error_event
from hubgate.web.shared.chat_reply import chunk_reader
from hubgate.web.shared.sse import around_text, encode_each, named_event, token_totals


class ResponseEncoder:
    """Encodes the chunks of a chat as the events of a response."""

    def __init__(self, writer: ResponseWriter) -> None:
        self._writer = writer
        self._reader = chunk_reader()
        self._pieces = 0
        self._item: TextItem | None = None
        self._deltas: _Deltas
        """Of this item."""
        self._unsent: list[bytes] = []
        """Events before a payload that is not valid."""

    def encode(self, payloads: Sequence[bytes]) -> bytes:
        self._unsent = [] if self._pieces else [_encode(self._writer.begin())]
        for part in self._reader.read(payloads):
            if isinstance(part, TextRun):
                self._pieces += len(part.texts)
                begin, item, first = self._writer.add_run(part)
                if item is not self._item:
                    self._item, self._deltas = item, _Deltas(item.empty_delta)
                self._unsent += (_encode(begin), self._deltas.render(first, part.texts))
            else:
                self._pieces += 1
                for event in self._writer.add(part):
                    self._unsent.append(_encode([event]))
        encoded, self._unsent = b"".join(self._unsent), []
        return encoded

    def finish(self) -> bytes:
        return _encode(self._writer.end())

    def encode_error(self, error: HubgateError) -> bytes:
        return b"".join(self._unsent) + _encode(self._writer.fail(error.cause, str(error)))

    @property
    def tokens(self) -> tuple[int, int]:
        counted = None
        if usage := self._writer.usage:
            counted = Usage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
        return token_totals(counted, self._pieces)


class _Deltas:
    """Encodes the deltas of an item, whose events differ in nothing else but their sequence numbers."""

    def __init__(self, empty: Event) -> None:
        name = b'"sequence_number":'
        event = _encode([{"type": empty["type"], "sequence_number": 0, **empty}])
        before, after = around_text(event, "delta")
        before, _, self._between = before.partition(name + b"0")
        self._before, self._after = before + name, after

    def render(self, first: int, deltas: Sequence[str]) -> bytes:
        """The events; `first` is the sequence number of the first one."""
        parts = [b"", self._between, b"", self._after + self._before] * len(deltas)
        parts[0::4] = encode_each(range(first, first + len(deltas)))
        parts[2::4] = encode_each(deltas)
        parts[-1] = self._after
        return self._before + b"".join(parts)


class _NativeUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None


class _NativeResponse(msgspec.Struct):
    usage: _NativeUsage | None = None


class _NativeEvent(msgspec.Struct):
    type: str = "message"
    sequence_number: int = 0
    response: msgspec.Raw = msgspec.Raw()


_NATIVE_EVENT = msgspec.json.Decoder(_NativeEvent)
_NATIVE_RESPONSE = msgspec.json.Decoder(_NativeResponse)
_NULL = b"null"


class NativeEncoder:
    """Passes on the events of a server with a route of its own.

    Args:
        begun: the response that hubgate would begin: see `complete`.
    """

    def __init__(self, begun: bytes) -> None:
        self._begun = begun
        self._usage: Usage | None = None
        self._pieces = 0
        self._sequence = 0

    def encode(self, payloads: Sequence[bytes]) -> bytes:
        return b"".join(map(self._encode, payloads))

    def finish(self) -> bytes:
        return b""

    def encode_error(self, error: HubgateError) -> bytes:
        event = error_event(error.cause, str(error))
        return _encode([event | {"sequence_number": self._sequence + 1}])

    @property
    def tokens(self) -> tuple[int, int]:
        return token_totals(self._usage, self._pieces)

    def _encode(self, payload: bytes) -> bytes:
        event = decode_reply(payload, _NATIVE_EVENT)
        self._pieces += 1
        self._sequence = event.sequence_number
        if raw := bytes(event.response):
            if usage := decode_reply(raw, _NATIVE_RESPONSE).usage:
                self._usage = Usage(usage.input_tokens, usage.output_tokens, usage.total_tokens)
            fields = decode_reply(payload, FIELDS_DECODER)
            payload = msgspec.json.encode(fields | {"response": msgspec.Raw(complete(raw, self._begun))})
        return named_event(event.type, payload)


def complete(native: bytes, begun: bytes) -> bytes:
    """A server's response, with those fields of one that hubgate has begun that the server leaves out.

    vLLM has no `error`, for example, and SGLang no `temperature` if the request has none.
    """
    fields = decode_reply(native, FIELDS_DECODER)
    given = {name: value for name, value in fields.items() if bytes(value) != _NULL}
    return msgspec.json.encode(decode_reply(begun, FIELDS_DECODER) | given)


def _encode(events: Iterable[Event]) -> bytes:
    return b"".join(named_event(event["type"], msgspec.json.encode(event)) for event in events)
