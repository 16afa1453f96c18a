"""Embedding, tokenizing, reranking and errors of web/cohere/CONTRACT.md."""

from __future__ import annotations

import base64
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from generation_endpoints import add, add_generator

from hubgate.domain.calls import Embed, Encoding, Token, Tokens, Vectors
from hubgate.domain.endpoint import Endpoint, InputType, Source, Task
from hubgate.domain.errors import (
    Cause,
    DeadlineExceeded,
    InvalidRequest,
    QueueFull,
    UpstreamError,
    UpstreamUnreachable,
)

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import Call, Result
    from hubgate.domain.errors import HubgateError

F32 = struct.pack("<2f", 0.25, -0.5)
ASKED: dict[str, Any] = {"model": "e5", "texts": ["a", "b"], "input_type": "search_document"}


async def embed(gateway: ScriptedGateway, version: int = 2, **more: Any) -> Any:
    reply = await gateway.request("POST", f"/v{version}/embed", {**ASKED, **more})
    assert reply.status == 200, reply.body
    return reply.json()


async def test_version_1_without_types_returns_plain_embeddings(scripted: ScriptedGateway) -> None:
    reply = await embed(scripted, 1)
    assert reply["response_type"] == "embeddings_floats"
    assert reply["embeddings"] == [[0, 0.5], [1, 0.5]]
    assert reply["texts"] == ["a", "b"]
    assert reply["meta"] == {"api_version": {"version": "1"}, "billed_units": {"input_tokens": 6}}


@pytest.mark.parametrize("version", [1, 2])
async def test_embeddings_are_returned_by_requested_type(scripted: ScriptedGateway, version: int) -> None:
    scripted.script.answer = lambda _: Vectors(items=[F32, F32], encoding=Encoding.F32)
    reply = await embed(scripted, version, embedding_types=["base64", "float", "float"])
    assert reply["response_type"] == "embeddings_by_type"
    assert list(reply["embeddings"]) == ["base64", "float"]
    assert reply["embeddings"]["float"] == [[0.25, -0.5]] * 2
    assert [base64.b64decode(item) for item in reply["embeddings"]["base64"]] == [F32] * 2


@pytest.mark.parametrize("version", [1, 2])
async def test_quantized_embeddings_are_integers(scripted: ScriptedGateway, version: int) -> None:
    scripted.script.answer = lambda _: Vectors(items=[F32, F32], encoding=Encoding.F32)
    types = ["int8", "uint8", "binary", "ubinary", "float"]
    reply = await embed(scripted, version, embedding_types=types)
    assert reply["embeddings"] == {
        "int8": [[16, -32]] * 2,
        "uint8": [[144, 96]] * 2,
        "binary": [[0]] * 2,
        "ubinary": [[128]] * 2,
        "float": [[0.25, -0.5]] * 2,
    }


async def test_version_2_returns_floats_unless_types_are_requested(scripted: ScriptedGateway) -> None:
    reply = await embed(scripted, 2)
    assert reply["embeddings"] == {"float": [[0, 0.5], [1, 0.5]]}
    assert reply["meta"]["api_version"] == {"version": "2"}


@pytest.mark.parametrize("path", ["/v1/v1/embed", "/v1/v2/embed"])
async def test_a_base_url_may_end_in_v1(scripted: ScriptedGateway, path: str) -> None:
    assert (await scripted.request("POST", path, ASKED)).json()["texts"] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("search_document", InputType.INGEST),
        ("search_query", InputType.SEARCH),
        ("classification", InputType.CLASSIFICATION),
        ("clustering", InputType.CLUSTERING),
        (None, None),
    ],
)
async def test_input_types_of_cohere_are_those_of_hubgate(
    scripted: ScriptedGateway, name: str | None, kind: InputType | None
) -> None:
    await embed(scripted, input_type=name)
    assert scripted.script.embedded.input_type is kind


async def test_a_model_name_can_have_an_input_type(scripted: ScriptedGateway) -> None:
    await embed(scripted, model="e5:query", input_type=None)
    assert scripted.script.embedded.input_type is InputType.SEARCH


@pytest.mark.parametrize(
    ("word", "truncate", "left"),
    [("NONE", False, None), ("END", True, None), ("START", True, True), (None, None, None)],
)
async def test_truncate_selects_which_end_of_a_text_is_cut(
    scripted: ScriptedGateway, word: str | None, truncate: bool | None, left: bool | None
) -> None:
    await embed(scripted, truncate=word)
    assert (scripted.script.embedded.truncate, scripted.script.embedded.truncate_left) == (truncate, left)


async def test_inputs_of_version_2_are_texts(scripted: ScriptedGateway) -> None:
    inputs = [{"content": [{"type": "text", "text": text}]} for text in ("a", "b")]
    assert (await embed(scripted, texts=None, inputs=inputs))["texts"] == ["a", "b"]


async def test_output_dimension_is_the_length_of_the_vectors(scripted: ScriptedGateway) -> None:
    model = "mixedbread-ai/mxbai-embed-large-v1"  # trained for shorter vectors
    scripted.script.facts = replace(scripted.script.facts, model=model)
    scripted.script.answer = lambda call: Vectors(
        items=[F32 * 512] * len(_texts(call)), encoding=Encoding.F32
    )
    endpoint = Endpoint(name="mxbai", task=Task.TEXT_EMBEDDING, source=Source.FAKE)
    await scripted.service.registry.register(endpoint, None)
    vectors = (await embed(scripted, model="mxbai", output_dimension=512))["embeddings"]["float"]
    assert [len(vector) for vector in vectors] == [512, 512]


async def test_options_that_change_nothing_are_accepted(scripted: ScriptedGateway) -> None:
    await embed(scripted, priority=1, max_tokens=4096, images=[])


async def test_estimates_and_truncation_are_marked_in_meta(scripted: ScriptedGateway) -> None:
    scripted.script.answer = lambda _: Vectors(items=[F32, F32], encoding=Encoding.F32, truncated=1)
    reply = await scripted.request("POST", "/v2/embed", ASKED)
    meta = reply.json()["meta"]
    assert (meta["estimated"], meta["truncated_inputs"]) == (True, 1)
    assert meta["billed_units"]["input_tokens"] > 0
    assert reply.headers["x-hubgate-truncated"] == "1"


@pytest.mark.parametrize(
    ("change", "status", "expected"),
    [
        ({"texts": [""]}, 400, "[texts[0]] is an empty string"),
        ({"texts": []}, 400, "[texts] is an empty list"),
        ({"texts": None}, 400, "[texts] is required"),
        ({"texts": ["a"] * 2049}, 413, "2049 texts"),
        ({"inputs": []}, 400, "[texts] and [inputs] cannot be sent together"),
        ({"texts": None, "inputs": [{"content": [{"type": "image_url"}]}]}, 400, "[inputs[0]]"),
        ({"images": ["data:image/png;base64,"]}, 400, "[images] is not supported"),
        ({"input_type": "image"}, 400, "[input_type] is not valid: 'image'"),
        ({"embedding_types": ["int4"]}, 400, "embedding_types"),
        ({"truncate": "MIDDLE"}, 400, "truncate"),
        ({"max_tokens": 10}, 400, "[max_tokens] cannot be 10"),
        ({"output_dimension": 1}, 400, "dimensions"),
        ({"colour": "red"}, 400, "Unknown field [colour]"),
        ({"model": None}, 400, "[model] is required"),
        ({"model": "none"}, 404, "[none]"),
    ],
)
async def test_an_invalid_embed_is_an_error_with_a_message_and_never_reaches_the_model(
    scripted: ScriptedGateway, change: dict[str, Any], status: int, expected: str
) -> None:
    asked = len(scripted.script.calls)
    reply = await scripted.request("POST", "/v2/embed", {**ASKED, **change})
    assert reply.status == status
    assert expected in reply.json()["message"]
    assert len(scripted.script.calls) == asked


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("no"), 400),
        (UpstreamError("too long", cause=Cause.INPUT_TOO_LONG), 400),
        (QueueFull("full"), 429),
        (UpstreamUnreachable("gone"), 500),
        (DeadlineExceeded("late"), 504),
    ],
)
async def test_an_error_has_a_status_for_which_the_client_has_an_exception(
    scripted: ScriptedGateway, error: HubgateError, status: int
) -> None:
    def fail(call: Call) -> Result:
        raise error

    scripted.script.answer = fail
    reply = await scripted.request("POST", "/v1/embed", ASKED)
    assert (reply.status, reply.json()) == (status, {"message": str(error), "code": error.cause})


@pytest.mark.parametrize(
    "path", ["/v1/embed", "/v2/embed", "/v1/chat", "/v2/chat", "/v1/tokenize", "/v2/rerank", "/v1/v2/embed"]
)
async def test_without_a_key_the_error_is_coheres(scripted: ScriptedGateway, path: str) -> None:
    reply = await scripted.request("POST", path, {}, key=None)
    assert (reply.status, reply.json()["code"]) == (401, "not_authenticated")


async def test_an_unserved_route_of_cohere_is_a_404_with_a_message(scripted: ScriptedGateway) -> None:
    for path in ("/v1/detokenize", "/v2/nothing"):
        reply = await scripted.request("POST", path, {})
        assert (reply.status, reply.json()["code"]) == (404, "not_found")


def _texts(call: Call) -> Any:
    assert isinstance(call, Embed)
    return call.texts


async def test_log_and_metrics_have_the_face(scripted: ScriptedGateway) -> None:
    await embed(scripted)
    metrics = (await scripted.request("GET", "/metrics")).body.decode()
    assert 'face="cohere"' in metrics


def tokens_of(*spans: tuple[int, int, int | None]) -> Tokens:
    return Tokens(items=[[Token(id=i, text="##", special=False, start=a, stop=b) for i, a, b in spans]])


async def tokenize(gateway: ScriptedGateway, text: str, tokens: Tokens) -> Any:
    gateway.script.answer = lambda _: tokens
    reply = await gateway.request("POST", "/v1/tokenize", {"model": "e5", "text": text})
    assert reply.status == 200, reply.body
    return reply.json()


async def test_token_strings_are_the_whole_text_in_parts(scripted: ScriptedGateway) -> None:
    """Dify joins them to cut a text, so no space may be lost."""
    reply = await tokenize(scripted, "red  foxes. ", tokens_of((7, 0, 3), (8, 5, 8), (9, 8, 10), (4, 10, 11)))
    assert reply["tokens"] == [7, 8, 9, 4]
    assert reply["token_strings"] == ["red", "  fox", "es", ". "]
    # One character of two tokens, and one that the tokenizer dropped.
    reply = await tokenize(scripted, "é🜁", tokens_of((1, 0, 1), (2, 0, 1)))
    assert reply["token_strings"] == ["é", "🜁"]
    assert (await tokenize(scripted, "🜁", Tokens(items=[[]])))["token_strings"] == []


@pytest.mark.parametrize(
    ("text", "expected"), [("", "empty string"), ("a" * 65_537, "65,536 characters"), (None, "[text]")]
)
async def test_an_invalid_text_is_not_tokenized(
    scripted: ScriptedGateway, text: str | None, expected: str
) -> None:
    reply = await scripted.request("POST", "/v1/tokenize", {"model": "e5", "text": text})
    assert reply.status == 400
    assert expected in reply.json()["message"]


@pytest.mark.parametrize("path", ["/v2/rerank", "/v1/v1/rerank", "/v1/v2/rerank"])
async def test_rerank_has_coheres_results_and_errors(scripted: ScriptedGateway, path: str) -> None:
    await add(scripted, "ranker", Task.RERANK)
    asked = {"model": "ranker", "query": "q", "documents": ["a", "ccc"], "top_n": 1}
    assert (await scripted.request("POST", path, asked)).json()["results"] == [
        {"index": 1, "relevance_score": 0.3}
    ]
    refused = await scripted.request("POST", path, {**asked, "query": ""})
    assert (refused.status, refused.json()["code"]) == (400, "invalid_request")
    assert "[query] is an empty string" in refused.json()["message"]


async def test_embedding_with_a_model_of_another_task_is_an_error_with_its_task(
    scripted: ScriptedGateway,
) -> None:
    await add_generator(scripted)
    reply = await scripted.request("POST", "/v2/embed", {**ASKED, "model": "llm"})
    assert reply.status == 400
    assert "chat_completion" in reply.json()["message"]
