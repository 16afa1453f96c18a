"""Parsing event streams: the same payloads for every split and line ending."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.sse import PlainEvents, SseParser
from hubgate.domain.errors import UpstreamUnreadable


def read(*chunks: bytes) -> list[bytes]:
    parser = SseParser()
    payloads = [payload for chunk in chunks for payload in parser.feed(chunk)]
    return payloads + parser.end()


STREAMS = {
    "as OpenAI's servers write": (
        b'data: {"a":1}\n\ndata: {"a":2}\n\ndata: [DONE]\n\n',
        [b'{"a":1}', b'{"a":2}'],
    ),
    "as text-generation-inference writes": (b'data:{"a":1}\n\ndata:{"a":2}\n\n', [b'{"a":1}', b'{"a":2}']),
    "with CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "with CR alone": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "with comments between": (b": ping\n\ndata: a\n\n:\n\ndata: b\n\n", [b"a", b"b"]),
    "with names and ids": (b"event: x\ndata: a\nid: 1\n\nid: 2\n\nretry: 3\ndata: b\n\n", [b"a", b"b"]),
    "with data on several lines": (b"data: a\ndata:b\ndata\ndata:  c\n\n", [b"a\nb\n\n c"]),
    "with more empty lines than needed": (b"\n\n\ndata: a\n\n\n\ndata: b\n\n\n", [b"a", b"b"]),
    "after a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "with nothing in an event": (b"data:\n\ndata: \n\ndata: a\n\n", [b"a"]),
    "going on after the end": (b"data: a\n\ndata: [DONE]\n\ndata: b\n\n", [b"a"]),
    "with the last empty line missing": (b"data: a\n\ndata: b", [b"a", b"b"]),
    "with colons, and DONE in the text": (b'data: {"x":"data: [DONE]"}\n\n', [b'{"x":"data: [DONE]"}']),
    "of nothing": (b"", []),
}


@pytest.mark.parametrize("name", STREAMS)
def test_parses_stream_independently_of_chunk_boundaries(name: str) -> None:
    stream, payloads = STREAMS[name]
    assert read(stream) == payloads
    assert read(*(bytes([byte]) for byte in stream)) == payloads
    for first in range(len(stream)):
        assert read(stream[:first], stream[first:]) == payloads
        for second in range(first, len(stream)):
            assert read(stream[:first], stream[first:second], stream[second:]) == payloads


@given(
    payloads=st.lists(st.binary(min_size=1).filter(lambda b: not {10, 13} & set(b) and b[:1] != b" ")),
    ends=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    space=st.sampled_from([b"", b" "]),
    data=st.data(),
)
def test_parses_generated_streams(
    payloads: list[bytes], ends: bytes, space: bytes, data: st.DataObject
) -> None:
    payloads = [payload for payload in payloads if payload != b"[DONE]"]
    stream = b"".join(b"data:" + space + payload + 2 * ends for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*pieces) == payloads


def test_feed_returns_all_complete_payloads() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\n\ndata: b\n\ndata: c") == [b"a", b"b"]
    assert parser.feed(b"\n\n") == [b"c"]


def test_done_marker_ends_the_stream() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\n\n") == [b"a"]
    done = [parser.done]
    assert parser.feed(b"data: [DO") == []
    assert parser.feed(b"NE]\n\n") == []
    assert [*done, parser.done] == [False, True]
    assert parser.feed(b"data: b\n\n") == []


def test_rejects_event_that_exceeds_the_size_limit() -> None:
    parser = SseParser(max_event_bytes=1000)
    for _ in range(10):
        assert parser.feed(b"x" * 100) == []
    with pytest.raises(UpstreamUnreadable, match="1000 bytes"):
        parser.feed(b"x")


def test_size_limit_applies_to_each_event() -> None:
    parser = SseParser(max_event_bytes=100)
    for _ in range(50):
        assert parser.feed(b"data: " + b"x" * 50 + b"\n\n") == [b"x" * 50]


@pytest.mark.parametrize("before", [b"data: ", b"data:"])
@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"])
def test_json_objects_on_one_line_are_not_split_until_one_is_looked_at(before: bytes, end: bytes) -> None:
    text = b"".join(before + payload + b"\n\n" for payload in (b'{"a":1}', b'{"a":2}', b'{"a":3}'))
    parser = SseParser()
    events = parser.feed(text + end)
    assert isinstance(events, PlainEvents)
    assert (events.text, events.before, len(events), parser.done) == (text, before, 3, bool(end))
    assert [*events] == [b'{"a":1}', b'{"a":2}', b'{"a":3}']
    assert events[1:] == [b'{"a":2}', b'{"a":3}']


@pytest.mark.parametrize(
    "other", [b"data: 1", b"data:{}", b": ping", b"id: 1\ndata: {}", b"data: {\ndata: }", b""]
)
def test_events_of_any_other_form_are_parsed_one_by_one(other: bytes) -> None:
    events = SseParser().feed(b"data: {}\n\n" + other + b"\n\ndata: {}\n\n")
    assert not isinstance(events, PlainEvents)
    assert [event for event in events if event == b"{}"][:2] == [b"{}", b"{}"]
