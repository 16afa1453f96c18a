"""The claims of web/openai/CONTRACT.md about `chunking_settings`, over real sockets."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any

import openai
import pytest

from hubgate.core.chunking import chunk
from hubgate.domain.chunking import DEFAULT_CHUNKING, parse_chunking_settings

if TYPE_CHECKING:
    from running_gateway import RunningGateway
    from scripted_gateway import ScriptedGateway

NAME = "all-minilm-l6-v2"
SMALL = {"strategy": "word", "max_chunk_size": 36, "overlap": 6}
TEXTS = [
    "Am Morgen öffnet sich das Tor 🙂, und die Händler bringen ihre Waren in die Stadt. " * 6,
    "دروازه در سپیده‌دم باز می‌شود و بازرگانان کالاهایشان را به شهر می‌آورند. " * 6,
    "short",
]


def ask(gateway: RunningGateway, **fields: object) -> Any:
    body = {"model": NAME, "input": TEXTS, "chunking_settings": SMALL, **fields}
    reply = gateway.request("POST", "/v1/embeddings", body)
    assert reply.status == 200, reply.body
    return reply.json()


def test_each_text_has_its_chunks_with_offsets_in_code_points(
    local_gateway: RunningGateway,
) -> None:
    answer = ask(local_gateway)
    assert answer.keys() == {"object", "data", "model", "usage"}
    assert [entry["index"] for entry in answer["data"]] == [0, 1, 2]
    for text, entry in zip(TEXTS, answer["data"], strict=True):
        assert entry.keys() == {"object", "index", "chunks"}
        places = chunk(text, parse_chunking_settings(SMALL))
        assert [(one["index"], one["start"], one["end"]) for one in entry["chunks"]] == [
            (index, place.start, place.end) for index, place in enumerate(places)
        ]
        for one in entry["chunks"]:
            assert one.keys() == {"index", "start", "end", "text", "embedding"}
            assert text[one["start"] : one["end"]] == one["text"]


def test_a_chunk_has_the_vector_and_the_tokens_of_its_text(local_gateway: RunningGateway) -> None:
    answer = ask(local_gateway)
    chunks = [one for entry in answer["data"] for one in entry["chunks"]]
    plain = ask(local_gateway, input=[one["text"] for one in chunks], chunking_settings=None)
    assert [one["embedding"] for one in chunks] == [entry["embedding"] for entry in plain["data"]]
    assert answer["usage"] == plain["usage"]


def test_chunks_in_base64_have_the_same_float32(local_gateway: RunningGateway) -> None:
    floats, packed = ask(local_gateway), ask(local_gateway, encoding_format="base64")
    for one, other in zip(floats["data"], packed["data"], strict=True):
        for number, text in zip(one["chunks"], other["chunks"], strict=True):
            vector = number["embedding"]
            assert base64.b64decode(text["embedding"]) == struct.pack(f"<{len(vector)}f", *vector)


def test_the_client_returns_chunks_when_an_encoding_is_set(local_gateway: RunningGateway) -> None:
    with openai.OpenAI(base_url=f"{local_gateway.url}/v1", api_key=local_gateway.admin_key) as client:
        answer = client.embeddings.create(
            model=NAME, input=TEXTS, encoding_format="float", extra_body={"chunking_settings": SMALL}
        )
    chunks = (answer.data[0].model_extra or {})["chunks"]
    assert [one["text"] for one in chunks] == [
        TEXTS[0][place.start : place.end] for place in chunk(TEXTS[0], parse_chunking_settings(SMALL))
    ]


def test_an_empty_object_means_the_settings_of_the_endpoint(gateway: RunningGateway) -> None:
    gateway.add("own", dimensions=8, chunking_settings=SMALL)
    small = ask(gateway, model="own")["data"]
    assert ask(gateway, model="own", chunking_settings={})["data"] == small
    body = {"input": TEXTS, "chunking_settings": {}}
    assert gateway.request("POST", "/hf/own/v1/embeddings", body).json()["data"] == small


def test_warnings_report_long_chunks_and_settings_that_allow_them(
    local_gateway: RunningGateway,
) -> None:
    text = "hyphenation and quaternions " * 100
    assert "warnings" not in ask(local_gateway, input=text, chunking_settings={}), (
        "the endpoint's own settings fit"
    )
    answer = ask(local_gateway, input=text, chunking_settings=DEFAULT_CHUNKING.as_dict())
    size, cut = answer["warnings"]
    assert size.startswith("Chunks of 250 words can be longer than the 256 tokens that the model reads")
    assert "max_chunk_size 36 fits" in size
    assert cut == "1 of 2 chunks were longer than the model reads, and were cut."
    assert answer["usage"]["truncated_inputs"] == 1


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (
            {"strategy": "word", "max_chunk_size": 10},
            "[chunking_settings] does not contain the required setting",
        ),
        ({"strategy": "recursive", "max_chunk_size": 10, "separators": ["("]}, "[separators]"),
        (5, "[chunking_settings] must be an object, not a number."),
    ],
)
async def test_invalid_chunking_settings_are_a_400_with_the_reason(
    scripted: ScriptedGateway, given: object, why: str
) -> None:
    body = {"model": "e5", "input": "a", "chunking_settings": given}
    reply = await scripted.request("POST", "/v1/embeddings", body)
    error = reply.json()["error"]
    assert (reply.status, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_request")
    assert why in error["message"]
    assert scripted.script.calls == []


def test_more_text_than_one_request_can_chunk_is_a_413(gateway: RunningGateway) -> None:
    gateway.add("fake", dimensions=8)
    body = {"model": "fake", "input": "a " * 100_000, "chunking_settings": {**SMALL, "max_chunk_size": 12}}
    reply = gateway.request("POST", "/v1/embeddings", body)
    assert reply.status == 413
    assert "more than 8192 chunks" in reply.json()["error"]["message"]


def test_token_counts_per_vector_and_chunk_on_request(
    gateway: RunningGateway,
) -> None:
    gateway.add("fake", dimensions=4)
    body = {"model": "fake", "input": ["one two three", "four"], "token_counts": True}
    result = gateway.request("POST", "/v1/embeddings", body).json()
    assert [item["tokens"] for item in result["data"]] == [3, 1]
    cut = {"strategy": "word", "max_chunk_size": 10, "overlap": 1}
    body |= {"input": ["word " * 15], "chunking_settings": cut}
    chunks = gateway.request("POST", "/v1/embeddings", body).json()["data"][0]["chunks"]
    assert [chunk["tokens"] for chunk in chunks] == [10, 6]
    body = {"model": "fake", "input": "one two three"}
    assert "tokens" not in gateway.request("POST", "/v1/embeddings", body).json()["data"][0]
