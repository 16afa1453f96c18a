"""Chunks that are read together are those that each of them would be."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.sse import PlainEvents, SseParser
from hubgate.core.transcoding import decode_reply
from hubgate.core.transcoding.text_runs import TextRun
from hubgate.domain.errors import UpstreamUnreadable
from hubgate.web.shared.chat_reply import CHAT_REPLY, ChatReply, chunk_reader


def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, **more}]}


def as_read(*batches: list[bytes]) -> list[ChatReply | TextRun[ChatReply]]:
    """What one reader makes of events that arrive in these batches."""
    reader, parser = chunk_reader(), SseParser()
    parts: list[ChatReply | TextRun[ChatReply]] = []
    for batch in batches:
        events = parser.feed(b"".join([b"data: %b\n\n" % payload for payload in batch]))
        assert isinstance(events, PlainEvents)
        parts += reader.read(events)
    return parts


def one_by_one(parts: list[ChatReply | TextRun[ChatReply]]) -> list[ChatReply]:
    """The chunks, each of a run made of the one that it is like."""
    chunks = []
    for part in parts:
        if not isinstance(part, TextRun):
            chunks.append(part)
            continue
        like: Any = json.loads(msgspec.json.encode(part.like))
        delta = like["choices"][0]["delta"]
        name = part.field if delta[part.field] else f"{part.field}_content"
        for text in part.texts:
            delta[name] = text
            chunks.append(decode_reply(json.dumps(like).encode(), CHAT_REPLY))
    return chunks


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(
    ['"', "\\", '","', "."]
)
DELTAS = st.one_of(
    TEXTS.map(lambda text: chunk({"content": text})),
    TEXTS.map(lambda text: chunk({"reasoning": text})),
    TEXTS.map(lambda text: chunk({"content": None, "reasoning_content": text})),
    TEXTS.map(lambda text: chunk({"content": text, "reasoning": text})),
    TEXTS.map(lambda text: chunk({"content": text}, logprobs={"content": [{"token": text}]})),
    TEXTS.map(lambda text: chunk({"content": text}, finish_reason="stop")),
    TEXTS.map(lambda text: {"content": text, **chunk({"content": text})}),
    st.just(chunk({"role": "assistant", "content": ""})),
    st.just({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
    st.just(chunk({"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": "{}"}}]})),
)
STREAMS = st.lists(st.lists(DELTAS, min_size=1, max_size=8), min_size=1, max_size=6)


@given(STREAMS, st.booleans(), st.booleans())
def test_any_stream_is_read_as_its_chunks(
    batches: list[list[dict[str, Any]]], spaces: bool, escapes: bool
) -> None:
    separators = (", ", ": ") if spaces else (",", ":")
    encoded = [
        [json.dumps(one, separators=separators, ensure_ascii=escapes).encode() for one in batch]
        for batch in batches
    ]
    expected = [decode_reply(payload, CHAT_REPLY) for batch in encoded for payload in batch]
    assert one_by_one(as_read(*encoded)) == expected


def plain(text: str = "word", **more: Any) -> bytes:
    return json.dumps(chunk({"content": text}, **more)).encode()


def test_texts_after_the_first_are_one_run() -> None:
    last = [plain("", finish_reason="stop"), b'{"choices": [], "usage": {"prompt_tokens": 1}}']
    first, run, *rest = as_read([plain("a"), plain("é"), plain("\n"), *last])
    assert isinstance(run, TextRun)
    assert (run.like, run.field, run.texts) == (first, "content", ["é", "\n"])
    assert len(rest) == 2


def test_runs_go_on_in_later_batches() -> None:
    parts = as_read([plain("a")], [plain("b")], [plain("c"), plain("d")])
    assert [part.texts for part in parts if isinstance(part, TextRun)] == [["b"], ["c", "d"]]


def test_another_constant_begins_another_run() -> None:
    """Such as the time of a chunk, which some servers write with seconds."""
    old, new = [plain(text, at=1) for text in "abc"], [plain(text, at=2) for text in "def"]
    parts = as_read([*old, *new], new)
    assert one_by_one(parts) == [decode_reply(payload, CHAT_REPLY) for payload in (*old, *new, *new)]
    assert isinstance(parts[-1], TextRun)


def test_chunks_that_always_differ_are_not_compared_for_long() -> None:
    reader = chunk_reader()
    for number in range(20):
        payload = plain("a", at=number)
        (part,) = reader.read(PlainEvents(b"data: %b\n\n" % payload, 1))
        assert isinstance(part, ChatReply)
    same = PlainEvents(b"data: %b\n\n" % payload * 3, 3)
    assert all(isinstance(part, ChatReply) for part in reader.read(same))


@pytest.mark.parametrize(
    "strings",
    [
        [b'"a" "b"'],
        [b'"a","b"'],
        [b'"a"', b'"b"'[:-1]],
        [b'"a', b'b","c"'],
        [b"", b'"a" "b"'],
        [b'"\\ud83d"'],
        [b'["a"]'],
        [b"1"],
        [b'"\\"'],
    ],
)
def test_what_is_not_a_string_is_an_error(strings: list[bytes]) -> None:
    known = plain("word")
    bad = [known.replace(b'"word"', string) for string in strings]
    with pytest.raises(UpstreamUnreadable):
        as_read([known, known], [known, *bad, known])
