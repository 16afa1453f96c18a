"""The bytes that a face sends do not depend on how many events of the model's server arrive together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubgate.core.sse import PlainEvents
from hubgate.domain.calls import WireFormat
from hubgate.domain.endpoint import Task
from hubgate.domain.errors import UpstreamUnreadable
from hubgate.web.cohere.chat_streams import V1Stream, V2Stream
from hubgate.web.elastic.generation import ElasticEncoder
from hubgate.web.responses.response import Response, rest_of_response
from hubgate.web.responses.streams import ResponseEncoder
from hubgate.web.responses.writer import ResponseWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubgate.web.shared.sse import StreamEncoder


def response_writer(*, summarized: bool = False) -> ResponseWriter:
    response = Response(id="resp_0", created_at=7, model="llm", output=[])
    return ResponseWriter(response, rest_of_response({}), summarized=summarized)


ENCODERS: dict[str, Callable[[], StreamEncoder]] = {
    "Cohere 1": lambda: V1Stream("id", b"[]"),
    "Cohere 2": lambda: V2Stream("id", b"[]"),
    "Responses": lambda: ResponseEncoder(response_writer()),
    "Responses, summary": lambda: ResponseEncoder(response_writer(summarized=True)),
    "Elasticsearch": lambda: ElasticEncoder(Task.CHAT_COMPLETION, WireFormat.OPENAI, lambda error: error),
}
TEXTS = st.sampled_from(["a", "", "é", '"\\', "\n", '"delta":""', '"content":""', "%d"])
DELTAS = st.one_of(
    TEXTS.map(lambda text: {"content": text}),
    TEXTS.map(lambda text: {"content": text}),
    TEXTS.map(lambda text: {"reasoning": text}),
    TEXTS.map(lambda text: {"refusal": text}),
    TEXTS.map(lambda text: {"content": text, "reasoning_content": text}),
)


def payload(delta: dict[str, Any]) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return json.dumps({"id": "c", "model": "m", "choices": [choice]}, separators=(",", ":")).encode()


@pytest.mark.parametrize("face", ENCODERS)
@given(st.lists(DELTAS, max_size=12))
def test_events_that_arrive_together_are_encoded_as_one_by_one(
    face: str, deltas: list[dict[str, Any]]
) -> None:
    payloads = [payload({"role": "assistant", "content": ""}), *map(payload, deltas)]
    text = b"".join([b"data: %b\n\n" % one for one in payloads])
    together, single = ENCODERS[face](), ENCODERS[face]()
    # Lists are decoded chunk by chunk.
    expected = b"".join([single.encode([one]) for one in payloads]) + single.finish()
    assert together.encode(PlainEvents(text, len(payloads))) + together.finish() == expected
    assert together.tokens == single.tokens


@pytest.mark.parametrize("face", [face for face in ENCODERS if face != "Elasticsearch"])
def test_events_before_a_chunk_that_is_not_valid_are_sent(face: str) -> None:
    payloads = [payload({"role": "assistant", "content": text}) for text in ("one", "two")]
    together, single = ENCODERS[face](), ENCODERS[face]()
    with pytest.raises(UpstreamUnreadable) as caught:
        together.encode([*payloads, b"{"])
    expected = b"".join([single.encode([one]) for one in payloads]) + single.encode_error(caught.value)
    assert together.encode_error(caught.value) == expected
