"""The claims of web/elastic/CONTRACT.md about `POST /_inference/…`."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest

from hubgate.domain import errors
from hubgate.domain.calls import Encoding, Vectors
from hubgate.domain.endpoint import InputType
from hubgate.domain.errors import Cause, UpstreamRefused

if TYPE_CHECKING:
    from scripted_gateway import Reply, ScriptedGateway

    from hubgate.domain.calls import Call, Result
    from hubgate.domain.errors import HubgateError

E5 = "/_inference/text_embedding/e5"


def raising(error: HubgateError) -> Any:
    """A script that fails."""

    def fail(call: Call) -> Result:
        raise error

    return fail


def answering(**fields: Any) -> Any:
    """A script that answers one text with these fields of `Vectors`."""
    given = {"items": [b"[1,2]"], "encoding": Encoding.JSON, **fields}
    return lambda _: Vectors(**given)


def reason_of(reply: Reply) -> str:
    """The error's reason, having checked that the body has Elasticsearch's shape all around it."""
    body = reply.json()
    assert set(body) == {"error", "status"}
    assert body["status"] == reply.status
    assert body["error"]["root_cause"][0].keys() == {"type", "reason"}
    reason: str = body["error"]["reason"]
    return reason


@pytest.mark.parametrize("path", [E5, "/_inference/e5", "/_inference/any/e5", E5 + "/"])
async def test_response_lists_embeddings_in_the_order_of_the_inputs(
    scripted: ScriptedGateway, path: str
) -> None:
    reply = await scripted.request("POST", path, {"input": ["a", "b"]})
    assert reply.status == 200
    assert reply.body == b'{"text_embedding":[{"embedding":[0,0.5]},{"embedding":[1,0.5]}]}'
    assert reply.headers["x-elastic-product"] == "Elasticsearch"


async def test_input_may_be_one_string(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", E5, {"input": "a"})
    assert reply.json() == {"text_embedding": [{"embedding": [0, 0.5]}]}


async def test_json_vectors_pass_as_the_upstream_wrote_them(scripted: ScriptedGateway) -> None:
    scripted.script.answer = answering(items=[b"[1.0, 2e-1]"])
    reply = await scripted.request("POST", E5, {"input": "a"})
    assert reply.body == b'{"text_embedding":[{"embedding":[1.0, 2e-1]}]}'


@pytest.mark.parametrize(
    ("kind", "key", "expected"),
    [
        ("float", "text_embedding", [0.25, -0.5]),
        ("byte", "text_embedding_bytes", [16, -32]),
        ("INT8", "text_embedding_bytes", [16, -32]),
        ("bit", "text_embedding_bits", [-128]),
        ("binary", "text_embedding_bits", [-128]),
    ],
)
async def test_embedding_type_returns_the_element_types_of_a_dense_vector(
    scripted: ScriptedGateway, kind: str, key: str, expected: list[float]
) -> None:
    scripted.script.answer = answering(items=[b"[0.25,-0.5]"])
    reply = await scripted.request("POST", E5, {"input": "a", "embedding_type": kind})
    assert reply.json() == {key: [{"embedding": expected}]}


async def test_f32_vectors_are_written_as_single_precision_numbers(scripted: ScriptedGateway) -> None:
    scripted.script.answer = answering(items=[struct.pack("<2f", 0.25, 0.1)], encoding=Encoding.F32)
    reply = await scripted.request("POST", E5, {"input": "a"})
    numbers = reply.json()["text_embedding"][0]["embedding"]
    assert struct.pack("<2f", *numbers) == struct.pack("<2f", 0.25, 0.1)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("search", InputType.SEARCH),
        ("INGEST", InputType.INGEST),
        ("Classification", InputType.CLASSIFICATION),
        ("clustering", InputType.CLUSTERING),
        ("unspecified", None),
        ("query", InputType.SEARCH),
        ("document", InputType.INGEST),
        (None, None),
    ],
)
async def test_input_type_is_case_insensitive(
    scripted: ScriptedGateway, word: str | None, meant: InputType | None
) -> None:
    assert (await scripted.request("POST", E5, {"input": "a", "input_type": word})).status == 200
    assert scripted.script.embedded.input_type is meant


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        ({}, "action_request_validation_exception", "Validation Failed: 1: Field [input] cannot be null;"),
        (
            {"input": None, "top_n": 3},
            "action_request_validation_exception",
            (
                "Validation Failed: 1: Field [input] cannot be null;"
                "2: Field [top_n] cannot be specified for task type [text_embedding];"
            ),
        ),
        ({"input": []}, "action_request_validation_exception", "1: Field [input] cannot be an empty array;"),
        (
            {"input": ["a", ""]},
            "action_request_validation_exception",
            "cannot hold an empty string, and text 1",
        ),
        ({"input": ""}, "action_request_validation_exception", "cannot hold an empty string, and text 0"),
        ({"input": ["a"] * 100_000}, "action_request_validation_exception", "100000 texts"),
        (
            {"input": "a", "query": "q"},
            "action_request_validation_exception",
            "Field [query] cannot be specified for task type [text_embedding]",
        ),
        (
            {"input": "a", "return_documents": False},
            "action_request_validation_exception",
            "Field [return_documents] cannot be specified for task type [text_embedding]",
        ),
        (
            {"input": "a", "model": "x"},
            "x_content_parse_exception",
            "unknown field [model]. Valid fields: [input, ",
        ),
        ({"input": 3}, "x_content_parse_exception", "[input] must be a string or an array, not a number."),
        ({"input": ["a", 3]}, "x_content_parse_exception", "[input[1]] must be a string, not a number."),
        ({"input": {"a": 1}}, "x_content_parse_exception", "not an object."),
        (
            {"input": "a", "embedding_type": "uint8"},
            "x_content_parse_exception",
            "Invalid value [uint8]. [embedding_type] must be one of [float, byte, int8, bit, binary]",
        ),
        (
            {"input": "a", "input_type": "verse"},
            "x_content_parse_exception",
            "ingest, search, classification",
        ),
        ({"input": "a", "top_n": "3"}, "x_content_parse_exception", "[top_n] must be an integer"),
        (
            {"input": "a", "task_settings": []},
            "x_content_parse_exception",
            "[task_settings] must be an object",
        ),
        (b"", "parse_exception", "request body is required"),
        (b"[]", "x_content_parse_exception", "must be an object, not an array."),
        (b'{"input": "a"', "x_content_parse_exception", "not valid JSON"),
        (b'{"input": "a\x00b"}', "x_content_parse_exception", "not valid JSON"),
        (b'{"input": "\xff"}', "x_content_parse_exception", "not valid JSON: it is not UTF-8."),
        (b'{"input": "\\udc00"}', "x_content_parse_exception", "not valid JSON"),
        (b'{"task_settings":' + b'{"a":' * 100_000, "x_content_parse_exception", "nested too deeply"),
        ({"input": "a", "timeout": "soon"}, "illegal_argument_exception", "as a time value"),
        ({"input": "a", "timeout": "0s"}, "illegal_argument_exception", "greater than zero"),
    ],
)
async def test_an_invalid_body_is_a_400_with_the_reason(
    scripted: ScriptedGateway, body: object, kind: str, expected: str
) -> None:
    reply = await scripted.request("POST", E5, body)
    assert reply.status == 400
    assert expected in reason_of(reply)
    assert reply.json()["error"]["type"] == kind
    assert not scripted.script.calls


async def test_an_escaped_nul_is_a_character_like_any_other(scripted: ScriptedGateway) -> None:
    assert (await scripted.request("POST", E5, b'{"input": "a\\u0000b"}')).status == 200
    assert scripted.script.embedded.texts == ("a\x00b",)


async def test_task_settings_are_ignored_with_a_warning(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", E5, {"input": "a", "task_settings": {"x": 1}})
    assert reply.status == 200
    assert reply.headers["warning"].startswith('299 hubgate "task_settings were ignored')
    assert "warning" not in (await scripted.request("POST", E5, {"input": "a", "task_settings": {}})).headers


async def test_truncation_is_reported_in_two_headers_and_not_in_the_body(
    scripted: ScriptedGateway,
) -> None:
    scripted.script.answer = answering(truncated=1)
    reply = await scripted.request("POST", E5, {"input": "a"})
    assert reply.headers["x-hubgate-truncated"] == "1"
    assert reply.headers["warning"].startswith('299 hubgate "1 of 1 inputs were longer')
    assert reply.json().keys() == {"text_embedding"}
    scripted.script.answer = answering(truncated=0)
    assert "x-hubgate-truncated" not in (await scripted.request("POST", E5, {"input": "a"})).headers


async def test_a_warning_of_the_model_is_an_elasticsearch_warning(scripted: ScriptedGateway) -> None:
    scripted.script.answer = answering(warnings=('It said "half" \\ précis',))
    reply = await scripted.request("POST", E5, {"input": "a"})
    assert reply.headers["warning"] == "299 hubgate \"It said 'half' / pr?cis\""


async def test_an_unknown_endpoint_is_a_404(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/_inference/text_embedding/other", {"input": "a"})
    assert reply.status == 404
    assert reason_of(reply) == "Inference endpoint not found [other]"
    assert reply.json()["error"]["type"] == "resource_not_found_exception"


async def test_an_endpoint_of_another_task_type_is_a_400(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/_inference/rerank/e5", {"input": "a", "query": "q"})
    assert reply.status == 400
    assert reason_of(reply) == (
        "Incompatible task_type, the requested type [rerank] does not match the model type [text_embedding]"
    )


async def test_an_unknown_task_type_is_a_400(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/_inference/poetry/e5", {"input": "a"})
    assert (reply.status, reason_of(reply)) == (400, "Unknown task_type [poetry]")


async def test_errors_of_chat_completion_have_their_own_shape(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/_inference/chat_completion/gpt", {"messages": []})
    assert reply.status == 404
    assert reply.json() == {
        "error": {
            "code": "not_found",
            "message": "Inference endpoint not found [gpt]",
            "type": "resource_not_found_exception",
        }
    }


async def test_a_stream_of_embeddings_is_refused_with_405_as_an_event(scripted: ScriptedGateway) -> None:
    for path in ("/_inference/e5/_stream", E5 + "/_stream"):
        reply = await scripted.request("POST", path, {"input": "a"})
        assert reply.status == 405
        assert reply.headers["content-type"] == "text/event-stream"
        event, data, *end = reply.body.decode().split("\n")
        assert (event, end) == ("event: error", ["", ""])
        payload = json.loads(data.removeprefix("data: "))
        assert payload["status"] == 405
        assert payload["error"]["reason"] == (
            "Streaming is not allowed for service [hugging_face] and task [text_embedding]. "
            "Supported tasks: [completion,chat_completion]"
        )


async def test_a_stream_of_an_unknown_endpoint_is_a_404_as_an_event(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", "/_inference/chat_completion/gpt/_stream", {"messages": []})
    assert reply.status == 404
    assert json.loads(reply.body.split(b"data: ")[1])["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("theirs", "ours", "prefix"),
    [
        (400, 400, "Received an unsuccessful status code"),
        (401, 401, "Received an authentication error status code"),
        (403, 403, "Received an unsuccessful status code"),
        (413, 413, "Received a content too large status code"),
        (422, 422, "Received an unsuccessful status code"),
        (429, 429, "Received a rate limit status code"),
        (307, 400, "Unhandled redirection"),
        (500, 400, "Received a server error status code"),
        (502, 400, "Received a rate limit status code"),
        (503, 400, "Received a rate limit status code"),
    ],
)
async def test_an_upstream_status_below_500_is_kept_and_others_are_400(
    scripted: ScriptedGateway, theirs: int, ours: int, prefix: str
) -> None:
    error = UpstreamRefused(
        "It refuses.", status=theirs, server_message="No.", remedy="Ask it.", retry_after=2.5
    )
    scripted.script.answer = raising(error)
    reply = await scripted.request("POST", E5, {"input": "a"})
    assert reply.status == ours
    assert reason_of(reply) == (
        f"{prefix} for request from inference entity id [e5] status [{theirs}]. Error message: [No.]. "
        "It refuses. Ask it."
    )
    assert reply.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("error", "status", "kind", "expected"),
    [
        (
            errors.QueueFull("1000 wait already.", remedy="Come back.", retry_after=1),
            429,
            "es_rejected_execution_exception",
            "Failed to execute task for inference id [e5] because the request service [e5] queue is full. 1000 wait",
        ),
        (
            errors.DeadlineExceeded("The time is over."),
            429,
            "timeout_exception",
            "Request timed out after [2m] for inference id [e5]. The time is over.",
        ),
        (errors.UpstreamUnreachable("Nothing listens."), 400, "status_exception", "Nothing listens."),
        (errors.UpstreamUnreadable("It sent HTML."), 400, "status_exception", "It sent HTML."),
        (errors.EndpointChanged("384 became 768."), 400, "status_exception", "384 became 768."),
        (
            errors.RuntimeFailed("The worker ended.", cause=Cause.RUNTIME_CRASHED),
            503,
            "status_exception",
            "The worker ended.",
        ),
        (errors.RuntimeFailed("Broken files."), 424, "status_exception", "Broken files."),
        (
            UpstreamRefused("Paused.", status=400, cause=Cause.PAUSED),
            400,
            "status_exception",
            "Received an unsuccessful status code for request from inference entity id [e5] status [400]. Paused.",
        ),
    ],
)
async def test_upstream_failures_have_elasticsearchs_error_types(
    scripted: ScriptedGateway, error: HubgateError, status: int, kind: str, expected: str
) -> None:
    scripted.script.answer = raising(error)
    reply = await scripted.request("POST", E5 + "?timeout=2m", {"input": "a"})
    assert reply.status == status
    assert reason_of(reply).startswith(expected)
    assert reply.json()["error"]["type"] == kind


async def test_the_timeout_in_the_query_takes_precedence_and_30s_is_the_default(
    scripted: ScriptedGateway,
) -> None:
    scripted.script.answer = raising(errors.DeadlineExceeded("Late."))
    for query, body, waited in (("?timeout=500ms", "2m", "500ms"), ("", "2m", "2m"), ("", None, "30s")):
        reply = await scripted.request("POST", E5 + query, {"input": "a", "timeout": body})
        assert f"timed out after [{waited}]" in reason_of(reply)
        assert scripted.script.embedded.context.deadline is not None


async def test_any_key_can_run_inference(scripted: ScriptedGateway) -> None:
    _, plain = await scripted.access.create("app")
    assert (await scripted.request("POST", E5, {"input": "a"}, key=plain)).status == 200


async def test_no_key_is_a_security_exception(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("POST", E5, {"input": "a"}, key=None)
    assert reply.status == 401
    assert reason_of(reply)
    assert reply.json()["error"]["type"] == "security_exception"


async def test_calls_are_counted_under_their_endpoint(scripted: ScriptedGateway) -> None:
    await scripted.request("POST", E5, {"input": ["a", "b"]})
    metrics = "".join(scripted.meter.lines())
    assert 'hubgate_texts_total{endpoint="e5"} 2.0' in metrics
    assert 'hubgate_tokens_total{endpoint="e5"} 6.0' in metrics
    assert 'hubgate_requests_total{cause="ok",endpoint="e5",face="elastic"} 1.0' in metrics


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/html", "application/json"),
        (
            "application/vnd.elasticsearch+json; compatible-with=9",
            "application/vnd.elasticsearch+json;compatible-with=9",
        ),
        (
            "application/vnd.elasticsearch+json;compatible-with=8",
            "application/vnd.elasticsearch+json;compatible-with=8",
        ),
        ("application/vnd.elasticsearch+json;compatible-with=7", "application/json"),
    ],
)
async def test_the_response_has_the_media_type_of_the_accept_header(
    scripted: ScriptedGateway, accept: str | None, given: str
) -> None:
    for method, body in (("POST", {"input": "a"}), ("GET", None)):
        reply = await scripted.request(method, E5, body, accept=accept)
        assert (reply.status, reply.headers["content-type"]) == (200, given)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (None, 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("application/vnd.elasticsearch+json; compatible-with=8", 200),
        ("application/x-www-form-urlencoded", 406),
        ("text/plain", 406),
        ("application/cbor", 406),
    ],
)
async def test_the_content_type_must_be_json_or_absent(
    scripted: ScriptedGateway, sent: str | None, status: int
) -> None:
    reply = await scripted.request("POST", E5, {"input": "a"}, content_type=sent)
    assert reply.status == status
    if status == 406:
        assert reason_of(reply) == f"Content-Type header [{sent}] is not supported. Send application/json."


async def test_common_parameters_are_accepted_and_others_rejected(
    scripted: ScriptedGateway,
) -> None:
    common = "?pretty&human=true&error_trace=true&filter_path=text_embedding"
    reply = await scripted.request("POST", E5 + common, {"input": "a"})
    assert reply.status == 200
    assert reply.body.startswith(b'{\n  "text_embedding": [\n')
    reply = await scripted.request("POST", E5 + "?colour=red&pretty=false", {"input": "a"})
    assert reason_of(reply) == f"request [{E5}] contains unrecognized parameter: [colour]"
    reply = await scripted.request("POST", E5 + "?b=1&a=2", {"input": "a"})
    assert reason_of(reply) == f"request [{E5}] contains unrecognized parameters: [a], [b]"
    reply = await scripted.request("POST", E5 + "?pretty=maybe", {"input": "a"})
    assert reason_of(reply) == "Failed to parse value [maybe] as only [true] or [false] are allowed."


async def test_errors_are_always_compact_json(scripted: ScriptedGateway) -> None:
    accept = "application/vnd.elasticsearch+json;compatible-with=9"
    reply = await scripted.request("POST", E5 + "?pretty&error_trace", {}, accept=accept)
    assert reply.headers["content-type"] == "application/json"
    assert reply.body.startswith(b'{"error":{"root_cause":[{"type":"action_request_validation_exception"')
    assert b"stack_trace" not in reply.body
