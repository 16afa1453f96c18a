"""The claims of web/openai/CONTRACT.md."""

from __future__ import annotations

import base64
import logging
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from scripted_gateway import two_numbers

from hubgate.domain import errors
from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.endpoint import InputType
from hubgate.domain.errors import Cause

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import Call, Result
    from hubgate.domain.errors import HubgateError

F32 = struct.pack("<2f", 0.25, -0.5)


def answering(**fields: Any) -> Any:
    """A script that answers one text with these fields of `Vectors`."""
    given = {"items": [F32], "encoding": Encoding.F32, **fields}
    return lambda call: Vectors(**given)


def raising(error: HubgateError) -> Any:
    """A script that fails."""

    def fail(call: Call) -> Result:
        raise error

    return fail


async def test_a_response_has_openais_shape_and_the_vectors_of_the_model(
    scripted: ScriptedGateway,
) -> None:
    scripted.script.answer = answering(items=[b"[1.0, 2e-1]"], encoding=Encoding.JSON, tokens=4, exact=True)
    reply = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "one"})
    assert reply.status == 200
    assert reply.body == (
        b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0, 2e-1]}],'
        b'"model":"e5","usage":{"prompt_tokens":4,"total_tokens":4}}'
    )


async def test_vectors_are_in_the_order_of_the_texts(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": ["a", "b", "c"]})
    assert [(one["index"], one["embedding"]) for one in reply.json()["data"]] == [
        (0, [0, 0.5]),
        (1, [1, 0.5]),
        (2, [2, 0.5]),
    ]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/v1/embeddings/"])
async def test_embeddings_are_served_with_and_without_v1(scripted: ScriptedGateway, path: str) -> None:
    assert (await scripted.request("POST", path, {"model": "e5", "input": "a"})).status == 200


async def test_base64_is_the_little_endian_float32_of_the_vector(scripted: ScriptedGateway) -> None:
    body = {"model": "e5", "input": "a", "encoding_format": "base64"}
    scripted.script.answer = answering()
    from_f32 = await scripted.request("POST", "/v1/embeddings", body)
    scripted.script.answer = answering(items=[b"[0.25,-0.5]"], encoding=Encoding.JSON)
    from_json = await scripted.request("POST", "/v1/embeddings", body)
    for reply in (from_f32, from_json):
        assert base64.b64decode(reply.json()["data"][0]["embedding"]) == F32


PACKED = {
    "int8": struct.pack("2b", 16, -32),
    "uint8": struct.pack("2B", 144, 96),
    "binary": struct.pack("b", 0),
    "ubinary": struct.pack("B", 128),
}


@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize("items", [[F32], [b"[0.25,-0.5]"]])
async def test_output_dtype_returns_integers_or_their_bytes(
    scripted: ScriptedGateway, dtype: str, items: list[bytes]
) -> None:
    scripted.script.answer = answering(
        items=items, encoding=Encoding.F32 if items == [F32] else Encoding.JSON
    )
    body = {"model": "e5", "input": "a", "output_dtype": dtype}
    numbers = (await scripted.request("POST", "/v1/embeddings", body)).json()["data"][0]["embedding"]
    packed = await scripted.request("POST", "/v1/embeddings", {**body, "encoding_format": "base64"})
    assert base64.b64decode(packed.json()["data"][0]["embedding"]) == PACKED[dtype]
    code = "b" if dtype in {"int8", "binary"} else "B"
    assert struct.pack(f"{len(numbers)}{code}", *numbers) == PACKED[dtype]
    if "binary" in dtype:  # Jina's field
        jina = {"model": "e5", "input": "a", "embedding_type": dtype}
        reply = await scripted.request("POST", "/v1/embeddings", jina)
        assert reply.json()["data"][0]["embedding"] == numbers


@pytest.mark.parametrize("language", ["python", "js"])
async def test_openais_clients_receive_integers_instead_of_base64(
    scripted: ScriptedGateway, language: str
) -> None:
    scripted.script.answer = answering()
    body = {"model": "e5", "input": "a", "output_dtype": "int8", "encoding_format": "base64"}
    header = {"x-stainless-lang": language}
    reply = await scripted.request("POST", "/v1/embeddings", body, more_headers=header)
    assert reply.json()["data"][0]["embedding"] == [16, -32]
    floats = await scripted.request(
        "POST", "/v1/embeddings", {**body, "output_dtype": "float"}, more_headers=header
    )
    assert base64.b64decode(floats.json()["data"][0]["embedding"]) == F32


async def test_output_dtype_shares_the_vectors_of_the_model(scripted: ScriptedGateway) -> None:
    for dtype in ("float", *PACKED):
        body = {"model": "e5", "input": "a", "output_dtype": dtype, "dimensions": 2}
        await scripted.request("POST", "/v1/embeddings", body)
    assert len({call.options for call in scripted.script.calls if isinstance(call, Embed)}) == 1


async def test_quantized_vectors_of_a_server_are_not_quantized_again(scripted: ScriptedGateway) -> None:
    scripted.script.answer = answering(items=[b"[-7,120]"], encoding=Encoding.JSON)
    body = {"model": "e5", "input": "a", "output_dtype": "int8"}
    assert (await scripted.request("POST", "/v1/embeddings", body)).json()["data"][0]["embedding"] == [
        -7,
        120,
    ]
    reply = await scripted.request("POST", "/v1/embeddings", {**body, "output_dtype": "binary"})
    assert reply.status == 400
    error = reply.json()["error"]
    assert "already returns quantized vectors" in error["message"]
    assert error["code"] == "wrong_task"  # no other text would do, so a bulk job stops


async def test_difys_not_set_is_ignored_as_an_encoding(scripted: ScriptedGateway) -> None:
    body = {"model": "e5", "input": "a", "encoding_format": "not_set"}
    reply = await scripted.request("POST", "/v1/embeddings", body)
    assert reply.json()["data"][0]["embedding"] == [0, 0.5]


@pytest.mark.parametrize("encoding_format", ["float", None])
async def test_vectors_are_numbers_unless_base64_is_requested(
    scripted: ScriptedGateway, encoding_format: str | None
) -> None:
    scripted.script.answer = answering()
    body = {"model": "e5", "input": "a", "encoding_format": encoding_format}
    reply = await scripted.request("POST", "/v1/embeddings", body)
    assert reply.json()["data"][0]["embedding"] == [0.25, -0.5]


async def test_estimated_usage_is_marked(scripted: ScriptedGateway) -> None:
    scripted.script.answer = answering(tokens=None)
    reply = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "x" * 40})
    assert reply.json()["usage"] == {"prompt_tokens": 11, "total_tokens": 11, "estimated": True}
    scripted.script.answer = answering(tokens=7, exact=False)
    reply = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "語" * 4})
    assert reply.json()["usage"] == {"prompt_tokens": 7, "total_tokens": 7, "estimated": True}


async def test_an_estimate_counts_the_bytes_of_other_scripts(scripted: ScriptedGateway) -> None:
    scripted.script.answer = answering(tokens=None)
    reply = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "語" * 40})
    assert reply.json()["usage"]["prompt_tokens"] == 31


async def test_truncation_is_reported_in_a_header_and_in_usage(scripted: ScriptedGateway) -> None:
    scripted.script.answer = answering(tokens=256, exact=True, truncated=1)
    reply = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "long"})
    assert reply.headers["x-hubgate-truncated"] == "1"
    assert reply.json()["usage"]["truncated_inputs"] == 1


@pytest.mark.parametrize("truncated", [0, None])
async def test_truncation_is_not_reported_when_there_is_none(
    scripted: ScriptedGateway, truncated: int | None
) -> None:
    scripted.script.answer = answering(tokens=2, exact=True, truncated=truncated)
    reply = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "short"})
    assert "x-hubgate-truncated" not in reply.headers
    assert "truncated_inputs" not in reply.json()["usage"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("document", InputType.INGEST),
        ("Passage", InputType.INGEST),
        ("search_document", InputType.INGEST),
        ("ingest", InputType.INGEST),
        ("query", InputType.SEARCH),
        ("search_query", InputType.SEARCH),
        ("search", InputType.SEARCH),
        ("classification", InputType.CLASSIFICATION),
        ("clustering", InputType.CLUSTERING),
        (None, None),
    ],
)
async def test_input_type_accepts_the_values_of_many_clients(
    scripted: ScriptedGateway, word: str | None, meant: InputType | None
) -> None:
    body = {"model": "e5", "input": "a", "input_type": word}
    assert (await scripted.request("POST", "/v1/embeddings", body)).status == 200
    assert scripted.script.embedded.input_type is meant


async def test_dimensions_must_be_supported_by_the_model(scripted: ScriptedGateway) -> None:
    body = {"model": "e5", "input": "a", "dimensions": 2}
    assert (await scripted.request("POST", "/v1/embeddings", body)).status == 200
    reply = await scripted.request("POST", "/v1/embeddings", {**body, "dimensions": 1})
    assert reply.status == 400
    assert reply.json()["error"]["message"].startswith(
        "[dimensions] cannot be 1: [org/model] returns vectors of 2 dimensions and is not known to be trained"
    )


async def test_user_is_ignored(scripted: ScriptedGateway) -> None:
    body = {"model": "e5", "input": "a", "user": {"any": "thing"}}
    assert (await scripted.request("POST", "/v1/embeddings", body)).status == 200


async def test_a_nul_character_in_a_text_is_accepted(scripted: ScriptedGateway) -> None:
    assert (await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "a\0b"})).status == 200
    assert scripted.script.embedded.texts == ["a\0b"]


BAD_INPUT: list[tuple[object, str]] = [
    ({"input": "a"}, "[model] is required"),
    ({"model": "", "input": "a"}, "[model] is required"),
    ({"model": "e5"}, "[input] is required."),
    ({"model": "e5", "input": None}, "[input] must be a string or an array, not null."),
    ({"model": "e5", "input": {"text": "a"}}, "not an object."),
    ({"model": "e5", "input": 7}, "[input] must be a string or an array, not a number."),
    ({"model": "e5", "input": ""}, "[input] is an empty string."),
    ({"model": "e5", "input": ["a", ""]}, "[input[1]] is an empty string."),
    ({"model": "e5", "input": []}, "[input] is an empty list."),
    ({"model": "e5", "input": ["a", None]}, "[input[1]] must be a string, not null."),
    ({"model": "e5", "input": ["a", ["b"]]}, "[input[1]] must be a string, not an array."),
    ({"model": "e5", "input": [{}]}, "[input[0]] must be a string, not an object."),
    ({"model": "e5", "input": [True]}, "[input[0]] must be a string, not a boolean."),
    ({"model": "e5", "input": ["a", 1]}, "[input[1]] must be a string, not a number."),
    ({"model": "e5", "input": [[]]}, "[input[0]] must be a string, not an array."),
    ({"model": "e5", "input": "a", "colour": "red"}, "Unknown field [colour]."),
    ({"model": "e5", "input": "a", "encoding_format": "int8"}, "[encoding_format] must be one of ["),
    ({"model": "e5", "input": "a", "output_dtype": "int4"}, "[output_dtype] must be one of [float, int8, "),
    ({"model": "e5", "input": "a", "dimensions": "many"}, "[dimensions] must be an integer, not a string."),
    ({"model": "e5", "input": "a", "input_type": "poem"}, "[input_type] is not valid: 'poem'."),
    ([1, 2], "The request body must be an object, not an array."),
    (b"", "The request body is not valid JSON: it is empty."),
    (b'{"model":"e5","input":"a"', "The request body is not valid JSON"),
    (b'{"model":"e5","input":"a\0b"}', "The request body is not valid JSON"),
    (b'{"model":"e5","input":"\xff"}', "The request body is not valid JSON"),
    (b'{"model":"e5","input":"\\ud800"}', "The request body is not valid JSON"),
]


@pytest.mark.parametrize(("body", "words"), BAD_INPUT)
async def test_invalid_input_is_a_400_with_the_field_and_never_reaches_the_model(
    scripted: ScriptedGateway, body: object, words: str
) -> None:
    reply = await scripted.request("POST", "/v1/embeddings", body)
    assert reply.status == 400
    error = reply.json()["error"]
    assert words in error.pop("message")
    assert error == {"type": "invalid_request_error", "param": None, "code": "invalid_request"}
    assert scripted.script.calls == []


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2], [3]]])
async def test_token_ids_are_rejected_with_the_langchain_setting_to_use(
    scripted: ScriptedGateway, ids: list[Any]
) -> None:
    reply = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": ids})
    assert reply.status == 400
    assert "check_embedding_ctx_length=False" in reply.json()["error"]["message"]


async def test_one_request_takes_at_most_2048_texts(scripted: ScriptedGateway) -> None:
    most = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": ["a"] * 2048})
    assert most.status == 200
    for count in (2049, 100_000):
        reply = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": ["a"] * count})
        assert reply.status == 413
        assert reply.json()["error"]["message"].startswith(f"[input] has {count} texts;")


async def test_a_body_over_the_limit_is_an_openai_error(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/v1/embeddings", b" " * 4_000_001)
    assert reply.status == 413
    assert reply.json()["error"]["code"] == "body_too_large"


async def test_an_unknown_model_is_not_found(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/v1/embeddings", {"model": "no/such", "input": "a"})
    assert reply.status == 404
    error = reply.json()["error"]
    assert (error["type"], error["code"]) == ("not_found_error", "endpoint_not_found")


async def test_without_a_key_the_error_is_openais(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "a"}, key=None)
    assert reply.status == 401
    assert reply.json()["error"]["type"] == "authentication_error"
    assert "www-authenticate" in reply.headers


async def test_another_method_is_a_405_with_the_allowed_methods(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("GET", "/v1/embeddings")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert reply.json()["error"]["message"] == "GET is not allowed at /v1/embeddings. Use POST."


async def test_an_unknown_path_is_a_404_in_openais_shape(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/v1/nothing", {})
    assert reply.status == 404
    assert reply.json()["error"]["message"] == "Nothing is served at POST /v1/nothing."


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (
            errors.QueueFull("Full.", retry_after=6.2),
            429,
            {"retry-after": "7", "ratelimit": '"allowance";r=0;t=7', "x-should-retry": "true"},
        ),
        (errors.DeadlineExceeded("Late."), 504, {"x-should-retry": "true"}),
        (errors.UpstreamUnreachable("Gone."), 502, {"x-should-retry": "true"}),
        (errors.UpstreamUnreadable("HTML."), 502, {"x-should-retry": "false"}),
        (errors.RuntimeFailed("Crashed.", cause=Cause.RUNTIME_CRASHED), 503, {"x-should-retry": "false"}),
        (errors.RuntimeFailed("Broken files."), 424, {}),
        (errors.UpstreamRefused("Paused.", status=400, cause=Cause.PAUSED), 424, {}),
        (errors.UpstreamRefused("Long.", status=413, cause=Cause.INPUT_TOO_LONG), 400, {}),
        (errors.InvalidRequest("Long.", cause=Cause.INPUT_TOO_LONG), 400, {}),
    ],
)
async def test_errors_have_x_should_retry(
    scripted: ScriptedGateway, error: HubgateError, status: int, headers: dict[str, str]
) -> None:
    scripted.script.answer = raising(error)
    reply = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "a"})
    assert reply.status == status
    assert reply.json()["error"]["code"] == error.cause
    present = {name: reply.headers.get(name) for name in ("retry-after", "ratelimit", "x-should-retry")}
    assert {name: value for name, value in present.items() if value is not None} == headers


async def test_models_lists_every_endpoint_with_the_fields_that_clients_read(
    scripted: ScriptedGateway,
) -> None:
    for path in ("/v1/models", "/models"):
        assert (await scripted.request("GET", path)).json() == {
            "object": "list",
            "data": [
                {
                    "id": "e5",
                    "object": "model",
                    "created": 0,
                    "owned_by": "hubgate",
                    "name": "e5",
                    "context_length": 256,
                    "architecture": {"input_modalities": ["text"], "output_modalities": ["embeddings"]},
                    "task": "text_embedding",
                    "model": "org/model",
                    "dimensions": 2,
                    "max_input_tokens": 256,
                }
            ],
        }


async def test_one_model_is_found_by_its_name(scripted: ScriptedGateway) -> None:
    assert (await scripted.request("GET", "/v1/models/e5")).json()["id"] == "e5"
    reply = await scripted.request("GET", "/v1/models/none")
    assert (reply.status, reply.json()["error"]["code"]) == (404, "endpoint_not_found")


async def test_the_token_limit_of_the_operator_takes_precedence(scripted: ScriptedGateway) -> None:
    await scripted.service.registry.update(
        replace(scripted.service.registry.find("e5"), max_input_tokens=100)
    )
    assert (await scripted.request("GET", "/v1/models/e5")).json()["max_input_tokens"] == 100


async def test_log_and_metrics_have_endpoint_texts_and_tokens(
    scripted: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hubgate.access"):
        await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": ["a", "b"]})
        await scripted.request("POST", "/v1/embeddings", {"model": "mistyped", "input": ["a"]})
    served, refused = caplog.messages
    assert "endpoint=e5 texts=2 cause=ok" in served
    assert "endpoint=- texts=0 cause=endpoint_not_found" in refused
    metrics = "".join(scripted.meter.lines())
    assert 'hubgate_texts_total{endpoint="e5"} 2.0' in metrics
    assert 'hubgate_tokens_total{endpoint="e5"} 6.0' in metrics
    assert 'hubgate_requests_total{cause="ok",endpoint="e5",face="openai"} 1.0' in metrics


async def test_the_key_id_identifies_the_caller_to_the_service(scripted: ScriptedGateway) -> None:
    scripted.script.answer = two_numbers
    key, plain = await scripted.access.create("an application")
    await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "a"}, key=plain)
    assert scripted.script.embedded.context.caller == key.id


@pytest.mark.parametrize(
    ("model", "sent", "kind"),
    [
        ("e5", None, None),
        ("e5:query", None, InputType.SEARCH),
        ("e5:document", None, InputType.INGEST),
        ("e5:query", "document", InputType.INGEST),
        ("e5", "search", InputType.SEARCH),
    ],
)
async def test_a_model_name_can_have_an_input_type(
    scripted: ScriptedGateway, model: str, sent: str | None, kind: InputType | None
) -> None:
    body = {"model": model, "input": "a"} | ({"input_type": sent} if sent else {})
    reply = await scripted.request("POST", "/v1/embeddings", body)
    assert reply.json()["model"] == model
    assert scripted.script.embedded.input_type is kind


async def test_a_key_can_have_an_input_type(scripted: ScriptedGateway) -> None:
    _, key = await scripted.access.create("reader", input_type=InputType.SEARCH)
    seen = []
    for model in ("e5", "e5:document"):
        await scripted.request("POST", "/v1/embeddings", {"model": model, "input": "a"}, key=key)
        seen.append(scripted.script.embedded.input_type)
    assert seen == [InputType.SEARCH, InputType.INGEST]


async def test_a_name_with_an_unknown_suffix_after_the_colon_is_rejected(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/v1/embeddings", {"model": "e5:sideways", "input": "a"})
    assert reply.status == 400
    assert "sideways" in reply.json()["error"]["message"]
