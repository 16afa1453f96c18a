"""The claims of web/elastic/CONTRACT.md about `chunking_settings` in `POST /_inference/…`, over real sockets."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest
from elasticsearch import Elasticsearch, ElasticsearchWarning
from lookalikes import lookalike

from hubgate.core.chunking import chunk
from hubgate.core.quantization import quantize
from hubgate.core.vectors import f32
from hubgate.domain.chunking import DEFAULT_CHUNKING, parse_chunking_settings
from hubgate.domain.endpoint import OutputDtype

if TYPE_CHECKING:
    from running_gateway import Reply, RunningGateway
    from scripted_gateway import ScriptedGateway

NAME = "all-minilm-l6-v2"
SMALL = {"strategy": "sentence", "max_chunk_size": 30, "sentence_overlap": 1}
TEXTS = [
    "The gate opens at dawn, and closes when the last of the carts has gone. 🙂 " * 6,
    "门在黎明时打开。商人们把货物运进城里。👩‍👩‍👧 " * 6,
    "short",
]


def ask(gateway: RunningGateway, name: str, settings: object, texts: list[str]) -> Reply:
    return gateway.request(
        "POST", f"/_inference/text_embedding/{name}", {"input": texts, "chunking_settings": settings}
    )


def chunks_of(reply: Reply) -> list[list[dict[str, Any]]]:
    assert reply.status == 200, reply.body
    assert set(reply.json()) == {"text_embedding"}
    return [entry["chunks"] for entry in reply.json()["text_embedding"]]


def test_each_input_has_its_chunks_with_offsets_in_utf16_units(
    local_gateway: RunningGateway,
) -> None:
    answered = chunks_of(ask(local_gateway, NAME, SMALL, TEXTS))
    assert len(answered) == len(TEXTS)
    for text, chunks in zip(TEXTS, answered, strict=True):
        places = chunk(text, parse_chunking_settings(SMALL))
        assert [(one["start_offset"], one["end_offset"]) for one in chunks] == [
            (place.start_utf16, place.end_utf16) for place in places
        ]
        units = text.encode("utf-16-le")
        for one in chunks:
            assert one.keys() == {"start_offset", "end_offset", "text", "embedding"}
            assert units[2 * one["start_offset"] : 2 * one["end_offset"]].decode("utf-16-le") == one["text"]
    assert min(len(answered[0]), len(answered[1])) > 2


def test_a_chunk_has_the_same_vector_as_its_text(local_gateway: RunningGateway) -> None:
    for chunks in chunks_of(ask(local_gateway, NAME, SMALL, TEXTS)):
        plain = local_gateway.request(
            "POST", f"/_inference/{NAME}", {"input": [one["text"] for one in chunks]}
        )
        assert [one["embedding"] for one in chunks] == [
            entry["embedding"] for entry in plain.json()["text_embedding"]
        ]


def test_chunks_have_the_element_type_of_the_request(local_gateway: RunningGateway) -> None:
    body = {"input": TEXTS, "chunking_settings": SMALL}
    path = f"/_inference/text_embedding/{NAME}"
    floats = local_gateway.request("POST", path, body).json()["text_embedding"]
    for kind, dtype in (("byte", OutputDtype.INT8), ("bit", OutputDtype.UBINARY)):
        reply = local_gateway.request("POST", path, {**body, "embedding_type": kind}).json()
        for text, quantized in zip(floats, reply[f"text_embedding_{kind}s"], strict=True):
            for one, other in zip(text["chunks"], quantized["chunks"], strict=True):
                signed = struct.pack(f"{len(other['embedding'])}b", *other.pop("embedding"))
                assert signed == quantize(f32(one["embedding"]), dtype)
                assert other == {key: value for key, value in one.items() if key != "embedding"}


def test_an_empty_object_selects_the_settings_of_the_endpoint(gateway: RunningGateway) -> None:
    gateway.add("own", dimensions=8, chunking_settings=SMALL)
    assert chunks_of(ask(gateway, "own", {}, TEXTS)) == chunks_of(ask(gateway, "own", SMALL, TEXTS))
    whole = chunks_of(ask(gateway, "own", {"strategy": "none"}, TEXTS))
    assert [[one["text"] for one in chunks] for chunks in whole] == [[text] for text in TEXTS]


@pytest.mark.parametrize("body", [{}, {"chunking_settings": None}])
async def test_inputs_are_not_chunked_without_the_field(
    scripted: ScriptedGateway, body: dict[str, object]
) -> None:
    text = "word " * 3000
    reply = await scripted.request("POST", "/_inference/e5", {"input": text, **body})
    assert reply.body == b'{"text_embedding":[{"embedding":[0,0.5]}]}'
    assert scripted.script.embedded.texts == (text,)


async def test_invalid_chunking_settings_are_a_400_with_the_message_of_put(
    scripted: ScriptedGateway,
) -> None:
    settings = {"strategy": "sentence", "max_chunk_size": 5, "overlap": 1}
    body = {"input": "a", "chunking_settings": settings}
    reply = await scripted.request("POST", "/_inference/e5", body)
    error = reply.json()["error"]
    assert (reply.status, error["type"]) == (400, "validation_exception")
    assert error["reason"] == (
        "Validation Failed: 1: Sentence based chunking settings can not have the following settings: [overlap];"
        "2: [chunking_settings] Invalid value [5.0]. [max_chunk_size] must be greater than or equal to [20.0];"
    )
    for given in (5, ["word"], "word"):
        reply = await scripted.request("POST", "/_inference/e5", {"input": "a", "chunking_settings": given})
        assert (reply.status, reply.json()["error"]["type"]) == (400, "x_content_parse_exception")
    broken = {"strategy": "recursive", "max_chunk_size": 10, "separators": ["("]}
    reply = await scripted.request("POST", "/_inference/e5", {"input": "a", "chunking_settings": broken})
    assert (reply.status, reply.json()["error"]["type"]) == (400, "validation_exception")
    assert scripted.script.calls == []


async def test_an_empty_input_is_rejected_with_chunking_settings(scripted: ScriptedGateway) -> None:
    for given in ("", ["a", ""]):
        reply = await scripted.request("POST", "/_inference/e5", {"input": given, "chunking_settings": {}})
        assert (reply.status, reply.json()["error"]["type"]) == (400, "action_request_validation_exception")


def test_a_warning_about_long_chunks_names_the_size_that_fits(local_gateway: RunningGateway) -> None:
    texts = ["hyphenation and quaternions " * 100]
    assert ask(local_gateway, NAME, {}, texts).headers["warning"] is None, "the endpoint's own settings fit"
    reply = ask(local_gateway, NAME, DEFAULT_CHUNKING.as_dict(), texts)
    assert reply.headers["x-hubgate-truncated"] == "1"
    size, cut = reply.headers.get_all("warning", [])
    assert "Chunks of 250 words can be longer than the 256 tokens" in size
    assert "max_chunk_size 36 fits" in size
    assert cut == '299 hubgate "1 of 2 chunks were longer than the model reads, and were cut."'
    fits = ask(local_gateway, NAME, {**SMALL, "max_chunk_size": 36}, texts)
    assert fits.headers["warning"] is None


@pytest.mark.filterwarnings("ignore:No prefix is added:elasticsearch.ElasticsearchWarning")
def test_the_client_shows_the_warning_of_put_and_returns_the_chunks(gateway: RunningGateway) -> None:
    with (
        lookalike("tei", max_tokens=128) as server,
        Elasticsearch(gateway.url, api_key=gateway.admin_key, max_retries=0, request_timeout=240) as client,
    ):
        with (
            pytest.warns(ElasticsearchWarning, match="may be cut without notice"),
            pytest.warns(ElasticsearchWarning, match=r"Chunks of 250 words .* max_chunk_size \d+ fits"),
        ):
            client.inference.put_hugging_face(
                task_type="text_embedding",
                huggingface_inference_id="e5",
                service="hugging_face",
                service_settings={"url": server.url, "api_key": "hf_any"},
            )
        answer = client.perform_request(
            "POST",
            "/_inference/text_embedding/e5",
            headers={"content-type": "application/json", "accept": "application/json"},
            body={"input": TEXTS, "chunking_settings": SMALL},
        )
        assert [len(entry["chunks"]) for entry in answer["text_embedding"]] == [
            len(chunk(text, parse_chunking_settings(SMALL))) for text in TEXTS
        ]


def test_a_text_of_five_megabytes_has_512_chunks_and_a_larger_one_is_a_413(
    gateway: RunningGateway,
) -> None:
    gateway.add("fake", dimensions=8)
    text = "word word word word. " * 240_000
    [chunks] = chunks_of(ask(gateway, "fake", {"strategy": "sentence", "max_chunk_size": 250}, [text]))
    assert len(chunks) == 512
    assert (chunks[0]["start_offset"], chunks[-1]["end_offset"]) == (0, len(text))
    small = {"strategy": "word", "max_chunk_size": 10, "overlap": 5}
    for texts, why in (
        (["a " * 3_000_001], "6000002 characters in total"),
        (["a " * 100_000], "8192 chunks"),
    ):
        reply = ask(gateway, "fake", small, texts)
        assert reply.status == 413
        assert why in reply.json()["error"]["reason"]
