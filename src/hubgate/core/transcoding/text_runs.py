"""Reading the chunks of a streamed chat, of which most differ from the one before in nothing but their text.

One of these is decoded, and the place of its text is found. Chunks that arrive together and have the same bytes before
and after the text are a run: only their texts are decoded, all at once. The result is what decoding each chunk would
give, as all other bytes are equal to bytes that were decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from hubgate.core.sse import PlainEvents
from hubgate.core.transcoding import decode_replies, decode_reply
from hubgate.domain.errors import UpstreamUnreadable

C = TypeVar("C")
TextField: TypeAlias = Literal["content", "reasoning"]

_STRING = rb'\s*("[^"\\]*(?:\\.[^"\\]*)*")'
_PLACES = {
    "content": re.compile(rb'"content":' + _STRING),
    "reasoning": re.compile(rb'"reasoning(?:_content)?":' + _STRING),
}
_STRINGS = msgspec.json.Decoder(list[str])
_MAX_USELESS = 4
"""Some servers send chunks that always differ, for example in a count of tokens."""


class TextRun(NamedTuple, Generic[C]):
    """Consecutive chunks that are equal to `like`, except for the text of this field. None is empty."""

    like: C
    field: TextField
    texts: list[str]


class ChunkReader(Generic[C]):
    """Reads the chunks of one stream.

    Args:
        decoder: of a chunk.
        only_text: the field that has a chunk's text, and the text, if the chunk has nothing else that matters.
    """

    def __init__(
        self,
        decoder: msgspec.json.Decoder[C],
        only_text: Callable[[C], tuple[TextField, str] | None],
    ) -> None:
        self._decoder = decoder
        self._only_text = only_text
        self._template: _Template[C] | None = None
        self._useless = 0
        """How many templates in a row no other chunk has matched."""

    def read(self, payloads: Sequence[bytes]) -> Iterable[C | TextRun[C]]:
        """The chunks in these payloads, which arrived together.

        Raises:
            UpstreamUnreadable: while iterating, at a payload that is not valid.
        """
        if isinstance(payloads, PlainEvents) and self._useless < _MAX_USELESS:
            return self._read(payloads)
        return decode_replies(payloads, self._decoder)

    def _read(self, events: PlainEvents) -> Iterator[C | TextRun[C]]:
        """Chunks one by one until a run begins, the run, and the rest."""
        payloads = events[:]
        start, size = 0, len(payloads)
        while start < size:
            template = self._template
            if template is not None and payloads[start].startswith(template.before):
                if texts := template.texts(payloads[start:] if start else payloads):
                    self._useless = 0
                    yield TextRun(template.like, template.field, texts)
                    start += len(texts)
                break
            chunk = decode_reply(payloads[start], self._decoder)
            yield chunk
            self._learn(payloads[start], chunk)
            start += 1
        if start < size:
            for chunk in decode_replies(payloads[start:], self._decoder):
                yield chunk
            self._learn(payloads[-1], chunk)

    def _learn(self, payload: bytes, chunk: C) -> None:
        """Find the place of the text, for the chunks that follow."""
        found = self._only_text(chunk)
        place = _PLACES[found[0]].search(payload) if found else None
        if found is None or place is None:
            return
        field, text = found
        before, after = payload[: place.start(1)], payload[place.end(1) :]
        # It is the place if another string in it becomes the text of the chunk.
        other = f"{text}."
        try:
            changed = decode_reply(before + msgspec.json.encode(other) + after, self._decoder)
        except UpstreamUnreadable:
            return
        if self._only_text(changed) == (field, other):
            self._template = _Template(chunk, field, before, after)
            self._useless += 1


class _Template(NamedTuple, Generic[C]):
    like: C
    field: TextField
    before: bytes
    """What precedes the text in the payload."""
    after: bytes

    def texts(self, payloads: list[bytes]) -> list[str] | None:
        """The texts of payloads that match, up to the last one that may; None if one in between does not match."""
        before, after = self.before, self.after
        end = len(payloads)
        while end and not payloads[end - 1].endswith(after):
            end -= 1
        matching, place = payloads[:end], slice(len(before), -len(after))
        strings = [payload[place] for payload in matching]
        if b"%b%b%b" % (before, (after + before).join(strings), after) != b"".join(matching):
            return None
        try:
            texts = _STRINGS.decode(b"[%b]" % b",\n".join(strings))  # no string can contain the line break
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return texts if len(texts) == end and "" not in texts else None
