"""The claims of web/huggingface/CONTRACT.md."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from scripted_gateway import ADMIN_KEY

from hubgate.domain import errors
from hubgate.domain.calls import Encoding, Token, Tokenize, Tokens, Vectors
from hubgate.domain.endpoint import InputType
from hubgate.domain.errors import Cause

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway

    from hubgate.domain.calls import Call, Result
    from hubgate.domain.errors import HubgateError


@pytest.mark.parametrize("path", ["/hf/e5", "/hf/e5/", "/hf/e5/embed", "/hf/e5/v1"])
async def test_the_response_is_a_list_of_vectors_even_for_one_string(
    scripted: ScriptedGateway, path: str
) -> None:
    one = await scripted.request("POST", path, {"inputs": "a"})
    assert (one.status, one.body) == (200, b"[[0,0.5]]")
    two = await scripted.request("POST", path, {"inputs": ["a", "b"]})
    assert two.body == b"[[0,0.5],[1,0.5]]"


async def test_f32_vectors_become_numbers(scripted: ScriptedGateway) -> None:
    scripted.script.answer = lambda call: Vectors(items=[b"\0\0\x80>\0\0\0\xbf"], encoding=Encoding.F32)
    assert (await scripted.request("POST", "/hf/e5", {"inputs": "a"})).json() == [[0.25, -0.5]]


async def test_options_are_at_the_root_of_the_body(scripted: ScriptedGateway) -> None:
    options = {
        "normalize": False,
        "truncate": True,
        "truncation_direction": "Left",
        "prompt_name": "query",
        "input_type": "query",
        "dimensions": 2,
        "encoding_format": "float",
    }
    assert (await scripted.request("POST", "/hf/e5", {"inputs": "a", **options})).status == 200
    call = scripted.script.embedded
    assert (call.normalize, call.truncate, call.truncate_left) == (False, True, True)
    assert (call.prompt_name, call.input_type) == ("query", InputType.SEARCH)


async def test_an_absent_option_has_the_default_of_the_model(scripted: ScriptedGateway) -> None:
    await scripted.request("POST", "/hf/e5", {"inputs": "a", "truncate": None})
    call = scripted.script.embedded
    assert (call.normalize, call.truncate, call.truncate_left, call.prompt_name) == (None,) * 4


async def test_options_in_parameters_are_accepted_and_the_root_takes_precedence(
    scripted: ScriptedGateway,
) -> None:
    body = {
        "inputs": "a",
        "truncate": False,
        "parameters": {"truncate": True, "normalize": False, "truncation_direction": "right"},
        "options": {"wait_for_model": True, "use_cache": False},
        "model": "http://127.0.0.1/hf/e5",
    }
    assert (await scripted.request("POST", "/hf/e5", body)).status == 200
    call = scripted.script.embedded
    assert (call.truncate, call.normalize, call.truncate_left) == (False, False, False)


async def test_truncation_is_reported_in_a_header(scripted: ScriptedGateway) -> None:
    scripted.script.answer = lambda call: Vectors(items=[b"[1,2]"], encoding=Encoding.JSON, truncated=1)
    assert (await scripted.request("POST", "/hf/e5", {"inputs": "a"})).headers["x-hubgate-truncated"] == "1"


@pytest.mark.parametrize(
    "model", [{}, {"model": ""}, {"model": "dummy"}, {"model": "tgi"}, {"model": "http://x/y"}]
)
@pytest.mark.parametrize("path", ["/hf/e5/v1/embeddings", "/hf/e5/embeddings"])
async def test_openai_embeddings_accept_any_model_name(
    scripted: ScriptedGateway, path: str, model: dict[str, str]
) -> None:
    reply = await scripted.request("POST", path, {"input": ["a"], **model})
    assert reply.status == 200
    assert reply.json()["model"] == "e5"
    assert reply.json()["data"][0]["embedding"] == [0, 0.5]


async def test_a_body_with_input_is_an_openai_request_on_the_base_url(scripted: ScriptedGateway) -> None:
    reply = await scripted.request(
        "POST", "/hf/e5", {"input": "a", "model": "dummy", "encoding_format": "base64"}
    )
    assert reply.json()["data"][0]["embedding"] == "AAAAAAAAAD8="


async def test_errors_below_v1_embeddings_are_openais(scripted: ScriptedGateway) -> None:
    for path, key in (("/hf/e5/v1/embeddings", "wrong-key"), ("/hf/none/v1/embeddings", ADMIN_KEY)):
        reply = await scripted.request("POST", path, {"input": "a"}, key=key)
        assert reply.json()["error"]["message"]


async def test_tokenize_gives_teis_tokens(scripted: ScriptedGateway) -> None:
    tokens = [Token(101, "[CLS]", True, None, None), Token(7592, "hello", False, 0, 5)]
    scripted.script.answer = lambda call: Tokens([tokens])
    for path in ("/hf/e5/tokenize", "/hf/e5/tokenize/"):
        reply = await scripted.request("POST", path, {"inputs": "hello", "add_special_tokens": True})
        assert reply.json() == [
            [
                {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None},
                {"id": 7592, "text": "hello", "special": False, "start": 0, "stop": 5},
            ]
        ]
    call = scripted.script.calls[-1]
    assert isinstance(call, Tokenize)
    assert (call.texts, call.add_special_tokens) == (["hello"], True)


async def test_tokenize_takes_a_bounded_number_of_characters(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/hf/e5/tokenize", {"inputs": ["a" * 131_072, "b" * 131_073]})
    assert reply.status == 413
    assert reply.json() == {
        "error": "[inputs] has more than 262,144 characters. Tokenize the texts in several requests.",
        "error_type": "Validation",
    }
    assert not scripted.script.calls


BAD_INPUT: list[tuple[object, int, str]] = [
    ({"inputs": []}, 400, "[inputs] is an empty list."),
    ({"inputs": ""}, 422, "[inputs] is an empty string."),
    ({"inputs": ["a", ""]}, 422, "[inputs[1]] is an empty string."),
    ({"inputs": None}, 422, "[inputs] is required."),
    ({}, 422, "[inputs] is required."),
    ({"inputs": 7}, 422, "[inputs] must be a string, an object or an array, not a number."),
    ({"inputs": [["a"]]}, 422, "[inputs[0]] must be a string, not an array."),
    ({"inputs": [[1, 2]]}, 422, "[inputs] has token ids"),
    ({"inputs": {"source_sentence": "a"}}, 422, "[inputs.sentences] is required."),
    ({"inputs": {"source_sentence": "a", "sentences": []}}, 400, "[inputs.sentences] is an empty list"),
    ({"inputs": "a", "colour": "red"}, 422, "Unknown field [colour]"),
    ({"inputs": "a", "parameters": {"colour": "red"}}, 422, "Unknown field [colour]"),
    ({"inputs": "a", "truncate": "yes"}, 422, "[truncate] must be a boolean, not a string."),
    ({"inputs": "a", "truncation_direction": "up"}, 422, "[truncation_direction] must be one of ["),
    (
        {"inputs": "a", "dimensions": 3},
        422,
        "returns vectors of 2 dimensions and is not known to be trained",
    ),
    ({"inputs": "a", "encoding_format": "base64"}, 422, "Use /v1/embeddings"),
    ({"inputs": "a", "input_type": "poem"}, 422, "[input_type] is not valid: 'poem'."),
    ({"inputs": ["a"] * 2049}, 413, "[inputs] has 2049 texts"),
    ({"inputs": ["a"] * 100_000}, 413, "[inputs] has 100000 texts"),
    (b"", 422, "it is empty"),
    (b'{"inputs":"a"', 422, "The request body is not valid JSON"),
    (b'{"inputs":"a\0"}', 422, "The request body is not valid JSON"),
    (b'{"inputs":"\xff"}', 422, "The request body is not valid JSON"),
    (b" " * 4_000_001, 413, "larger than 4000000 bytes"),
]


@pytest.mark.parametrize(("body", "status", "words"), BAD_INPUT)
async def test_invalid_input_is_a_tei_error_and_never_reaches_the_model(
    scripted: ScriptedGateway, body: object, status: int, words: str
) -> None:
    reply = await scripted.request("POST", "/hf/e5", body)
    assert reply.status == status
    error = reply.json()
    assert words in error["error"]
    assert error["error_type"] == ("Empty" if status == 400 else "Validation")
    assert scripted.script.calls == []


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.QueueFull("Full."), 429, "Overloaded"),
        (
            errors.UpstreamRefused("Waking.", status=503, cause=Cause.WAKING, retryable=True),
            429,
            "Overloaded",
        ),
        (errors.RuntimeFailed("Crashed."), 424, "Backend"),
        (errors.UpstreamRefused("Paused.", status=400, cause=Cause.PAUSED), 424, "Backend"),
        (errors.UpstreamUnreadable("HTML."), 502, "Backend"),
        (errors.DeadlineExceeded("Late."), 504, "Backend"),
        (errors.UpstreamRefused("Long.", status=413, cause=Cause.INPUT_TOO_LONG), 413, "Validation"),
        (errors.InvalidRequest("Long.", cause=Cause.INPUT_TOO_LONG), 413, "Validation"),
    ],
)
async def test_no_failure_is_a_503_which_huggingface_js_retries_forever(
    scripted: ScriptedGateway, error: HubgateError, status: int, kind: str
) -> None:
    def fail(call: Call) -> Result:
        raise error

    scripted.script.answer = fail
    reply = await scripted.request("POST", "/hf/e5", {"inputs": "a"})
    assert (reply.status, reply.json()) == (status, {"error": error.message, "error_type": kind})


@pytest.mark.parametrize("tail", ["", "/embed", "/tokenize", "/info"])
async def test_an_unknown_endpoint_is_not_found(scripted: ScriptedGateway, tail: str) -> None:
    method = "GET" if tail == "/info" else "POST"
    reply = await scripted.request(method, f"/hf/none{tail}", {"inputs": "a"})
    assert reply.status == 404
    assert reply.json()["error"].startswith("No endpoint is named [none].")


async def test_another_method_is_a_405_with_the_allowed_methods(scripted: ScriptedGateway) -> None:
    for method, path, allowed in (
        ("GET", "/hf/e5/embed", "POST"),
        ("PUT", "/hf/e5", "GET, HEAD, POST"),
        ("POST", "/hf/e5/info", "GET, HEAD"),
    ):
        reply = await scripted.request(method, path)
        assert (reply.status, reply.headers["allow"]) == (405, allowed)
        assert reply.json()["error_type"] == "Validation"


async def test_an_unknown_path_is_a_404_in_teis_shape(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/hf/e5/decode", {"ids": [1]})
    assert (reply.status, reply.json()["error"]) == (404, "Nothing is served at POST /hf/e5/decode.")


@pytest.mark.parametrize("path", ["/", "/embed", "/tokenize"])
async def test_bare_routes_use_the_default_endpoint_of_the_key(scripted: ScriptedGateway, path: str) -> None:
    _, plain = await scripted.access.create("app", default_endpoint="e5")
    if path == "/tokenize":
        scripted.script.answer = lambda call: Tokens([[]])
    assert (await scripted.request("POST", path, {"inputs": "a"}, key=plain)).status == 200


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/"), ("POST", "/embed"), ("GET", "/info"), ("GET", "/health")]
)
async def test_a_bare_route_is_an_error_when_the_key_has_no_default_endpoint(
    scripted: ScriptedGateway, method: str, path: str
) -> None:
    reply = await scripted.request(method, path, {"inputs": "a"})
    assert reply.status == 422
    assert reply.json()["error"].startswith(
        "This path calls the key's default endpoint, but the key has none."
    )


async def test_a_key_in_the_path_works_and_is_not_logged(
    scripted: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    _, plain = await scripted.access.create("langchain")
    with caplog.at_level(logging.DEBUG):
        good = await scripted.request("POST", f"/k/{plain}/hf/e5", {"inputs": "a"}, key=None)
        bad = await scripted.request("POST", "/k/a-mistyped-key/hf/e5", {"inputs": "a"}, key=None)
    assert (good.status, good.body) == (200, b"[[0,0.5]]")
    assert (bad.status, list(bad.json())) == (401, ["error", "error_type"])
    assert plain not in caplog.text
    assert "a-mistyped-key" not in caplog.text


async def test_log_and_metrics_have_endpoint_texts_and_tokens(
    scripted: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hubgate.access"):
        await scripted.request("POST", "/hf/e5", {"inputs": ["a", "b"]})
    assert "endpoint=e5 texts=2 cause=ok" in caplog.text
    metrics = "".join(scripted.meter.lines())
    assert 'hubgate_tokens_total{endpoint="e5"} 6.0' in metrics
    assert 'hubgate_requests_total{cause="ok",endpoint="e5",face="huggingface"} 1.0' in metrics
