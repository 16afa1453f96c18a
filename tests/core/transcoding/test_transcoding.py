"""Generated text is converted between the formats of OpenAI and TGI."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hubgate.core.sse import SseParser
from hubgate.core.transcoding import (
    Label,
    decode_replies,
    merge_completions,
    read_piece,
    text_of,
    to_openai,
    to_tgi,
)
from hubgate.core.transcoding.objects import USAGE_DECODER, Usage
from hubgate.core.transcoding.streams import openai_transcoder, tgi_transcoder
from hubgate.domain.calls import Generated, WireFormat
from hubgate.domain.errors import UpstreamUnreadable
from hubgate.web.shared.sse import sse_events

if TYPE_CHECKING:
    from hubgate.core.transcoding.streams import StreamTranscoder

LABEL = Label("cmpl-1", "llm", 7)


def generated(body: dict[str, Any], wire_format: WireFormat, **known: Any) -> Generated:
    return Generated(body=json.dumps(body).encode(), wire_format=wire_format, **known)


def transcoded(transcoder: StreamTranscoder, *payloads: dict[str, Any]) -> list[Any]:
    parts = transcoder.transcode([json.dumps(payload).encode() for payload in payloads])
    return [json.loads(part) for part in (*parts, *transcoder.end())]


def choice(text: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": reason, **more}]}


@pytest.mark.parametrize(
    ("openai", "stop", "tgi"),
    [
        ("length", None, "length"),
        ("stop", None, "eos_token"),
        ("stop", "###", "stop_sequence"),
        ("stop", 13, "eos_token"),
        ("tool_calls", None, "eos_token"),
    ],
)
def test_converts_finish_reasons(openai: str, stop: object, tgi: str) -> None:
    body = choice("a", openai, stop_reason=stop)
    converted = json.loads(to_tgi(generated(body, WireFormat.OPENAI), details=True))
    assert converted["details"]["finish_reason"] == tgi
    back = to_openai(generated(converted, WireFormat.TGI), LABEL)
    assert json.loads(back)["choices"][0]["finish_reason"] == ("length" if tgi == "length" else "stop")


def test_tgi_details_list_openai_tokens_with_id_zero() -> None:
    body = choice("ab", "stop", logprobs={"tokens": ["a", "b"], "token_logprobs": [None, -0.5]})
    converted = json.loads(to_tgi(generated(body, WireFormat.OPENAI), details=True))
    assert converted["details"]["tokens"] == [
        {"id": 0, "text": "a", "logprob": 0.0, "special": False},
        {"id": 0, "text": "b", "logprob": -0.5, "special": False},
    ]
    assert converted["details"]["generated_tokens"] == 2


A, B, END = (
    {"id": 5, "text": "a", "logprob": -0.5, "special": False},
    {"id": 6, "text": "bc", "logprob": -1.0, "special": False},
    {"id": 2, "text": "</s>", "logprob": -0.1, "special": True},
)
LIKELIEST = [
    {"id": 5, "text": "a", "logprob": -0.5, "special": False},
    {"id": 7, "text": "x", "logprob": -2.0, "special": False},
]


def test_converts_tgi_logprobs_to_openai() -> None:
    details = {"finish_reason": "eos_token", "generated_tokens": 3, "tokens": [A, B, END]}
    body = {"generated_text": "say abc", "details": details | {"top_tokens": [LIKELIEST, [B], [END]]}}
    reply = generated(body, WireFormat.TGI)
    assert json.loads(to_openai(reply, LABEL))["choices"][0]["logprobs"] is None
    whole = json.loads(to_openai(reply, LABEL, with_logprobs=True, before="say "))
    assert whole["choices"][0]["logprobs"] == {
        "tokens": ["a", "bc"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"a": -0.5, "x": -2.0}, {"bc": -1.0}],
        "text_offset": [4, 5],
    }
    alone = generated({"generated_text": "abc", "details": details}, WireFormat.TGI)
    whole = json.loads(to_openai(alone, LABEL, with_logprobs=True))
    assert whole["choices"][0]["logprobs"] == {
        "tokens": ["a", "bc"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": None,
        "text_offset": [0, 1],
    }
    bare = generated({"generated_text": "abc"}, WireFormat.TGI)
    assert json.loads(to_openai(bare, LABEL, with_logprobs=True))["choices"][0]["logprobs"] is None


def test_converts_tgi_stream_logprobs_per_chunk() -> None:
    events = (
        {"index": 1, "token": A, "top_tokens": LIKELIEST},
        {"index": 2, "token": B},
        {"index": 3, "token": END, "generated_text": "abc", "details": {"finish_reason": "eos_token"}},
    )
    silent = openai_transcoder(WireFormat.TGI, LABEL, with_usage=False)
    assert [chunk["choices"][0]["logprobs"] for chunk in transcoded(silent, *events)] == [None] * 3
    transcoder = openai_transcoder(WireFormat.TGI, LABEL, with_usage=False, with_logprobs=True, before="say ")
    first, second, last = (chunk["choices"][0] for chunk in transcoded(transcoder, *events))
    assert (first["text"], second["text"], last["text"]) == ("say a", "bc", "")
    assert first["logprobs"] == {
        "tokens": ["a"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"a": -0.5, "x": -2.0}],
        "text_offset": [4],
    }
    assert (second["logprobs"]["text_offset"], second["logprobs"]["top_logprobs"]) == ([5], None)
    assert last["logprobs"] is None


def test_converts_openai_top_logprobs_to_tgi_top_tokens() -> None:
    logprobs = {
        "tokens": ["a", "b"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"a": -0.5, "x": -2.0}, None],
    }
    converted = json.loads(
        to_tgi(generated(choice("ab", "stop", logprobs=logprobs), WireFormat.OPENAI), details=True)
    )
    first, second = converted["details"]["top_tokens"]
    assert [(token["text"], token["logprob"]) for token in first] == [("a", -0.5), ("x", -2.0)]
    assert second == []
    one = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "x": -2.0}]}
    event, several, *_ = transcoded(
        tgi_transcoder(WireFormat.OPENAI), choice("a", logprobs=one), choice("ab", logprobs=logprobs)
    )
    assert [token["text"] for token in event["top_tokens"]] == ["a", "x"]
    assert "top_tokens" not in several


def test_omits_incomplete_usage() -> None:
    body = {"generated_text": "a"}
    known = to_openai(generated(body, WireFormat.TGI, prompt_tokens=3, tokens=5), LABEL)
    assert json.loads(known)["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert json.loads(to_openai(generated(body, WireFormat.TGI, tokens=5), LABEL))["usage"] is None


def test_finds_reply_text_in_tgi_openai_and_chat_replies() -> None:
    assert text_of(generated({"generated_text": "a"}, WireFormat.TGI)) == "a"
    assert text_of(generated(choice("b"), WireFormat.OPENAI)) == "b"
    chat = {"choices": [{"message": {"role": "assistant", "content": "c"}}]}
    assert text_of(generated(chat, WireFormat.OPENAI)) == "c"
    assert text_of(generated({"choices": [{"message": {"content": None}}]}, WireFormat.OPENAI)) == ""
    assert text_of(generated({"choices": []}, WireFormat.OPENAI)) == ""


def test_reads_text_of_the_first_choice_only() -> None:
    chunk = {"choices": [{"index": 1, "text": "b"}]}
    assert read_piece(json.dumps(chunk).encode(), WireFormat.OPENAI).text == ""


def test_event_logprob_sums_its_tokens() -> None:
    chunk = choice("ab", logprobs={"tokens": ["a", "b"], "token_logprobs": [-0.25, -0.5]})
    assert transcoded(tgi_transcoder(WireFormat.OPENAI), chunk)[0]["token"]["logprob"] == -0.75


def test_counts_chunks_as_tokens_without_usage() -> None:
    *_, last = transcoded(tgi_transcoder(WireFormat.OPENAI), choice("a"), choice("b"), choice("", "stop"))
    assert last["details"]["generated_tokens"] == 2
    assert last["details"]["input_length"] == 0


def test_omits_prompt_from_events_after_an_empty_first_chunk() -> None:
    transcoder = tgi_transcoder(WireFormat.OPENAI, before="say ")
    *events, last = transcoded(transcoder, {"choices": []}, choice("say a"), choice("b", "stop"))
    assert [event["token"]["text"] for event in events] == ["a", "b"]
    assert last["generated_text"] == "say ab"


def test_single_tgi_event_makes_a_complete_openai_stream() -> None:
    event = {
        "index": 1,
        "token": {"id": 0, "text": "a", "logprob": None, "special": False},
        "generated_text": "a",
        "details": None,
    }
    transcoder = openai_transcoder(WireFormat.TGI, LABEL, with_usage=True, before="say ")
    (chunk,) = transcoded(transcoder, event)
    assert chunk == {
        "object": "text_completion",
        "id": "cmpl-1",
        "model": "llm",
        "created": 7,
        "choices": [{"index": 0, "text": "say a", "logprobs": None, "finish_reason": "stop"}],
        "usage": None,
    }


def test_keeps_usage_in_chunk_with_choices() -> None:
    transcoder = openai_transcoder(WireFormat.OPENAI, LABEL, with_usage=False)
    chunk = {**choice("", "stop"), "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    assert transcoded(transcoder, chunk) == [chunk]
    assert transcoder.usage is not None
    assert transcoder.usage.total == 3


def test_merged_completions_renumber_choices_and_keep_fields() -> None:
    one = {"id": "x", "choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b", "own": 1}], "own": 2}
    two = {"id": "y", "choices": [{"index": 0, "text": "c"}], "usage": {"total_tokens": 4}}
    merged = json.loads(merge_completions([json.dumps(one).encode(), json.dumps(two).encode()]))
    assert merged["choices"] == [
        {"index": 0, "text": "a"},
        {"index": 1, "text": "b", "own": 1},
        {"index": 2, "text": "c"},
    ]
    assert (merged["id"], merged["own"], merged["usage"]["total_tokens"]) == ("x", 2, 4)


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"choices": 3}', b"[" * 20000, b'{"choices":[{"text":"\xff"}]}']
)
def test_unreadable_generation_reply_raises_upstream_error(body: bytes) -> None:
    with pytest.raises(UpstreamUnreadable):
        text_of(Generated(body=body, wire_format=WireFormat.OPENAI))


def test_event_without_text_produces_no_chunk() -> None:
    event = {"index": 1, "token": {"id": 5, "text": "", "logprob": -1.0, "special": False}}
    assert transcoded(openai_transcoder(WireFormat.TGI, LABEL, with_usage=True), event) == []


@pytest.mark.parametrize("together", [True, False], ids=["in one read", "one by one"])
@pytest.mark.parametrize("nulls", [True, False], ids=["usage null before", "no usage before"])
@pytest.mark.parametrize("with_usage", [True, False])
def test_usage_event_is_dropped_unless_the_client_wants_it(
    together: bool, nulls: bool, with_usage: bool
) -> None:
    before: dict[str, Any] = {"usage": None} if nulls else {}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    chunks = [*(choice(text) | before for text in "ab"), {"choices": [], "usage": usage}]
    events = [b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode() for chunk in chunks]
    transcoder = openai_transcoder(WireFormat.OPENAI, LABEL, with_usage=with_usage)
    parser, passed = SseParser(), b""
    for read in [b"".join(events)] if together else events:
        passed += sse_events(transcoder.transcode(parser.feed(read)))
    assert passed == b"".join(events if with_usage else events[:2])
    assert (transcoder.usage, transcoder.pieces) == (Usage(1, 2, 3), 3)


@pytest.mark.parametrize(
    "bodies",
    [
        [b'{"usage":{"total_tokens":1}}', b'{"usage":{"total_tokens":2}}'],
        [b'{"usage":\n{"total_tokens":1}}', b'{"usage":{"total_tokens":2}}'],
    ],
    ids=["each on one line", "one on two lines"],
)
def test_objects_that_arrive_together_are_decoded_one_by_one(bodies: list[bytes]) -> None:
    totals = [chunk.usage and chunk.usage.total for chunk in decode_replies(bodies, USAGE_DECODER)]
    assert totals == [1, 2]


@pytest.mark.parametrize("wrong", [b"[]", b'{"usage":', b'{"usage":null}{"usage":null}', b'{"usage":"\xff"}'])
def test_objects_before_a_wrong_one_are_decoded(wrong: bytes) -> None:
    decoded = iter(decode_replies([b'{"usage":{"total_tokens":1}}', wrong], USAGE_DECODER))
    assert next(decoded).usage == Usage(total_tokens=1)
    with pytest.raises(UpstreamUnreadable):
        next(decoded)
