"""The claims of web/elastic/CONTRACT.md about PUT, GET, `_update`, DELETE and `_services`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from hubgate.domain import errors
from hubgate.domain.endpoint import Source, Task
from hubgate.domain.errors import UpstreamRefused

if TYPE_CHECKING:
    from scripted_gateway import Reply, ScriptedGateway

    from hubgate.domain.calls import Call, Result
    from hubgate.domain.errors import HubgateError

TOKEN = "hf_a-token-nobody-may-see"
URL = "https://e5.example.endpoints.huggingface.cloud"
NEW = "/_inference/text_embedding/new"
SETTINGS: dict[str, Any] = {"url": URL, "api_key": TOKEN}
SHOWN = {
    "inference_id": "new",
    "task_type": "text_embedding",
    "service": "hugging_face",
    "service_settings": {
        "url": URL,
        "similarity": "cosine",
        "dimensions": 2,
        "rate_limit": {"requests_per_minute": 3000},
    },
    "chunking_settings": {"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1},
}


def form(settings: object = None, **fields: object) -> dict[str, object]:
    """The body of a PUT; `settings` override the two required ones."""
    merged = {**SETTINGS, **settings} if isinstance(settings, dict) else settings or SETTINGS
    return {"service": "hugging_face", "service_settings": merged, **fields}


def raising(error: HubgateError) -> Any:
    """A script that fails."""

    def fail(call: Call) -> Result:
        raise error

    return fail


def error_of(reply: Reply) -> tuple[int, str, str]:
    """Status, type and reason of an error; a token is never part of it."""
    assert TOKEN.encode() not in reply.body
    error = reply.json()["error"]
    return reply.status, error["type"], error["reason"]


async def names(gateway: ScriptedGateway) -> list[str]:
    """The ids of all endpoints."""
    return [e["inference_id"] for e in (await gateway.request("GET", "/_inference")).json()["endpoints"]]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (NEW, {}),
        (NEW, {"task_type": "text_embedding"}),
        ("/_inference/new", {"task_type": "text_embedding"}),
        ("/_inference/any/new", {"task_type": "text_embedding"}),
    ],
)
async def test_put_returns_the_endpoint_with_its_measured_dimensions(
    scripted: ScriptedGateway, path: str, fields: dict[str, str]
) -> None:
    reply = await scripted.request("PUT", path, form(**fields))
    assert (reply.status, reply.json()) == (200, SHOWN)
    assert (await scripted.request("GET", NEW)).json() == {"endpoints": [SHOWN]}


async def test_put_keeps_every_setting_and_never_shows_the_token(scripted: ScriptedGateway) -> None:
    settings = {
        "similarity": "DOT_PRODUCT",
        "dimensions": 2,
        "max_input_tokens": 512,
        "rate_limit": {"requests_per_minute": 60},
    }
    chunking = {"strategy": "word", "max_chunk_size": 100, "overlap": 20}
    reply = await scripted.request("PUT", NEW, form(settings, chunking_settings=chunking, task_settings={}))
    assert reply.json()["service_settings"] == {
        "url": URL,
        "similarity": "dot_product",
        "dimensions": 2,
        "max_input_tokens": 512,
        "rate_limit": {"requests_per_minute": 60},
    }
    assert reply.json()["chunking_settings"] == chunking
    assert TOKEN.encode() not in reply.body
    assert scripted.service.registry.token_hint("new") == "…-see"


async def test_put_with_a_model_id_and_no_url_is_a_local_model_and_needs_no_token(
    scripted: ScriptedGateway,
) -> None:
    settings = {"model_id": "sentence-transformers/all-MiniLM-L6-v2"}
    reply = await scripted.request(
        "PUT", NEW, {"service": "hugging_face", "service_settings": settings, "chunking_settings": {}}
    )
    assert reply.status == 200
    assert reply.json()["service"] == "hugging_face"
    assert reply.json()["service_settings"]["model_id"] == settings["model_id"]
    assert "url" not in reply.json()["service_settings"]
    assert scripted.service.registry.find("new").source is Source.LOCAL


async def test_put_with_a_url_and_a_model_id_is_a_server_and_one_of_its_models(
    scripted: ScriptedGateway,
) -> None:
    reply = await scripted.request("PUT", NEW, form({"model_id": "org/one"}))
    assert reply.json()["service_settings"]["model_id"] == "org/one"
    assert scripted.service.registry.find("new").source is Source.DEDICATED


@pytest.mark.parametrize(
    ("path", "body", "kind", "expected"),
    [
        (
            "/_inference/text_embedding/New",
            b"not even json",
            "action_request_validation_exception",
            "Validation Failed: 1: Invalid inference_id; 'New' can contain lowercase alphanumeric",
        ),
        (
            "/_inference/text_embedding/_all",
            form(),
            "action_request_validation_exception",
            "'_all' can contain",
        ),
        (
            "/_inference/text_embedding/a\x00b",
            form(),
            "action_request_validation_exception",
            "Invalid inference",
        ),
        ("/_inference/poetry/new", form(), "status_exception", "Unknown task_type [poetry]"),
        ("/_inference/new", form(), "status_exception", "model is missing required setting [task_type]"),
        (
            "/_inference/any/new",
            form(),
            "status_exception",
            "task_type [any] is not valid type for inference",
        ),
        (
            NEW,
            form(task_type="rerank"),
            "status_exception",
            (
                "Cannot resolve conflicting task_type parameter in the request URL [text_embedding] and the request body "
                "[rerank]"
            ),
        ),
        (NEW, {}, "status_exception", "Inference endpoint configuration is missing the [service] setting"),
        (NEW, {"service": "openai"}, "status_exception", "Unknown service [openai]"),
        (
            "/_inference/embedding/new",
            form(),
            "status_exception",
            "The [hugging_face] service does not support task type [embedding]",
        ),
        (
            NEW,
            {"service": "hugging_face"},
            "validation_exception",
            (
                "Validation Failed: 1: [service_settings] does not contain the required setting [url];"
                "2: [service_settings] does not contain the required setting [api_key];"
            ),
        ),
        (
            NEW,
            {"service": "hugging_face", "service_settings": {"url": URL, "api_key": None}},
            "validation_exception",
            "1: [service_settings] does not contain the required setting [api_key];",
        ),
        (
            NEW,
            form({"api_key": " "}),
            "validation_exception",
            "[service_settings] Invalid value empty string. [api_key] must be a non-empty string",
        ),
        (
            NEW,
            form({"similarity": "manhattan"}),
            "validation_exception",
            "[similarity] must be one of [cosine, dot_product, l2_norm]",
        ),
        (
            NEW,
            form({"dimensions": 0, "rate_limit": {"requests_per_minute": -1}}),
            "validation_exception",
            (
                "Validation Failed: 1: [service_settings] Invalid value [0]. [dimensions] must be a positive integer;"
                "2: [rate_limit] Invalid value [-1]. [requests_per_minute] must be a positive integer;"
            ),
        ),
        (
            NEW,
            form({"max_input_tokens": 10**30}),
            "validation_exception",
            "[max_input_tokens] must be a positive",
        ),
        (
            NEW,
            form({"dimensions": "2"}),
            "status_exception",
            "field [dimensions] is not of the expected type",
        ),
        (NEW, form({"dimensions": True}), "status_exception", "cannot be converted to a [Integer]"),
        (NEW, form({"api_key": [TOKEN]}), "status_exception", "field [api_key] is not of the expected type"),
        (NEW, form({"rate_limit": 60}), "status_exception", "field [rate_limit] is not of the expected type"),
        (
            NEW,
            form({"apikey": TOKEN}),
            "status_exception",
            "Configuration contains settings [{apikey=…}] unknown to the [hugging_face] service",
        ),
        (NEW, form({"rate_limit": {"rpm": 1}}), "status_exception", "contains settings [{rpm=…}] unknown"),
        (NEW, form(task_settings={"x": 1}), "status_exception", "contains settings [{x=…}] unknown"),
        (NEW, form(name="x"), "status_exception", "contains settings [{name=…}] unknown"),
        (NEW, form(chunking_settings={"max_chunk_size": 20}), "validation_exception", "ChunkingStrategy"),
        (
            NEW,
            form(chunking_settings={"strategy": "sentence", "max_chunk_size": 5}),
            "validation_exception",
            "[max_chunk_size] must be greater than or equal to [20.0]",
        ),
        (
            NEW,
            form(chunking_settings={"strategy": "recursive", "max_chunk_size": 20, "separators": ["("]}),
            "validation_exception",
            "Validation Failed: 1: ",
        ),
        (NEW, b"", "parse_exception", "request body is required"),
        (NEW, b"{", "x_content_parse_exception", "not valid JSON"),
        (NEW, b"[]", "x_content_parse_exception", "must be an object, not an array."),
        (NEW + "?timeout=5", form(), "illegal_argument_exception", "as a time value"),
        (NEW + "?wait=1s", form(), "illegal_argument_exception", "contains unrecognized parameter: [wait]"),
    ],
)
async def test_an_invalid_put_is_a_400_and_stores_nothing(
    scripted: ScriptedGateway, path: str, body: object, kind: str, expected: str
) -> None:
    status, actual_kind, reason = error_of(await scripted.request("PUT", path, body))
    assert (status, actual_kind) == (400, kind)
    assert expected in reason
    assert not scripted.script.calls
    assert await names(scripted) == ["e5"]


async def test_put_never_overwrites(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("PUT", "/_inference/text_embedding/e5", form())
    assert error_of(reply) == (
        400,
        "resource_already_exists_exception",
        "Inference endpoint [e5] already exists",
    )
    assert not scripted.script.calls


@pytest.mark.parametrize(
    ("error", "kind", "expected"),
    [
        (
            UpstreamRefused("It is paused.", status=400, server_message="Bad Request: Invalid state"),
            "status_exception",
            (
                "Received an unsuccessful status code for request from inference entity id [new] status [400]. "
                "Error message: [Bad Request: Invalid state]. It is paused."
            ),
        ),
        (errors.UpstreamUnreachable("Nothing listens."), "status_exception", "Nothing listens."),
        (
            errors.DeadlineExceeded("Late."),
            "timeout_exception",
            "Request timed out after [2s] for inference id [new]",
        ),
        (errors.RuntimeFailed("No model."), "status_exception", "No model."),
    ],
)
async def test_a_failed_put_is_a_400_with_its_cause_and_stores_nothing(
    scripted: ScriptedGateway, error: HubgateError, kind: str, expected: str
) -> None:
    scripted.script.answer = raising(error)
    reply = await scripted.request("PUT", NEW + "?timeout=2s", form())
    assert error_of(reply) == (
        400,
        "status_exception",
        "Could not complete inference endpoint creation as validation call to service threw an exception.",
    )
    shown = reply.json()["error"]
    assert shown["root_cause"] == [shown["caused_by"]]
    assert shown["caused_by"]["type"] == kind
    assert shown["caused_by"]["reason"].startswith(expected)
    assert await names(scripted) == ["e5"]


async def test_put_rejects_dimensions_that_differ_from_the_models(scripted: ScriptedGateway) -> None:
    status, kind, reason = error_of(await scripted.request("PUT", NEW, form({"dimensions": 768})))
    assert (status, kind) == (400, "status_exception")
    assert (
        "The retrieved embeddings size [2] does not match the size specified in the settings [768]" in reason
    )


@pytest.mark.parametrize(
    "path",
    [
        "/_inference",
        "/_inference/",
        "/_inference/_all",
        "/_inference/*",
        "/_inference/text_embedding/_all",
        "/_inference/any/_all",
    ],
)
async def test_get_lists_all_endpoints(scripted: ScriptedGateway, path: str) -> None:
    await scripted.request("PUT", "/_inference/text_embedding/a", form())
    shown = (await scripted.request("GET", path)).json()["endpoints"]
    assert [one["inference_id"] for one in shown] == ["a", "e5"]


async def test_get_lists_the_endpoints_of_a_task_type(scripted: ScriptedGateway) -> None:
    assert (await scripted.request("GET", "/_inference/rerank/_all")).json() == {"endpoints": []}
    assert (
        error_of(await scripted.request("GET", "/_inference/poetry/_all"))[2] == "Unknown task_type [poetry]"
    )


async def test_get_of_one_endpoint_is_a_list_of_one(scripted: ScriptedGateway) -> None:
    for path in ("/_inference/e5", "/_inference/text_embedding/e5"):
        assert len((await scripted.request("GET", path)).json()["endpoints"]) == 1


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_id_is_a_404_and_a_wrong_task_type_a_400(
    scripted: ScriptedGateway, method: str
) -> None:
    assert error_of(await scripted.request(method, "/_inference/other")) == (
        404,
        "resource_not_found_exception",
        "Inference endpoint not found [other]",
    )
    assert error_of(await scripted.request(method, "/_inference/rerank/e5")) == (
        400,
        "status_exception",
        "Requested task type [rerank] does not match the inference endpoint's task type [text_embedding]",
    )


async def test_update_changes_token_allowance_and_token_limit(scripted: ScriptedGateway) -> None:
    await scripted.request("PUT", NEW, form())
    settings = {
        "api_key": "hf_another-token",
        "max_input_tokens": 512,
        "rate_limit": {"requests_per_minute": 60},
    }
    reply = await scripted.request("PUT", NEW + "/_update", {"service_settings": settings})
    assert reply.status == 200
    assert reply.json()["service_settings"]["rate_limit"] == {"requests_per_minute": 60}
    assert reply.json()["service_settings"]["max_input_tokens"] == 512
    assert scripted.service.registry.token_hint("new") == "…oken"


async def test_update_keeps_absent_settings_and_null_restores_the_default(
    scripted: ScriptedGateway,
) -> None:
    await scripted.request(
        "PUT", NEW, form({"max_input_tokens": 512, "rate_limit": {"requests_per_minute": 60}})
    )
    kept = await scripted.request("PUT", NEW + "/_update", {"service_settings": {"max_input_tokens": 256}})
    assert kept.json()["service_settings"]["rate_limit"] == {"requests_per_minute": 60}
    assert scripted.service.registry.token_hint("new") == "…-see"
    reset = await scripted.request(
        "PUT", NEW + "/_update", {"service_settings": {"rate_limit": None, "max_input_tokens": None}}
    )
    assert reset.json() == SHOWN


async def test_an_update_without_changes_does_not_call_the_upstream(scripted: ScriptedGateway) -> None:
    await scripted.request("PUT", NEW, form())
    scripted.script.calls.clear()
    reply = await scripted.request(
        "PUT", "/_inference/new/_update", {"task_type": "text_embedding", "task_settings": {}}
    )
    assert (reply.json(), scripted.script.calls) == (SHOWN, [])


async def test_a_failed_update_keeps_the_old_settings(scripted: ScriptedGateway) -> None:
    await scripted.request("PUT", NEW, form())
    scripted.script.answer = raising(UpstreamRefused("No.", status=401))
    reply = await scripted.request(
        "PUT", NEW + "/_update", {"service_settings": {"api_key": "hf_a-wrong-one"}}
    )
    assert error_of(reply)[2].startswith("Could not complete inference endpoint creation")
    assert reply.json()["error"]["caused_by"]["reason"].startswith(
        "Received an authentication error status code"
    )
    assert scripted.service.registry.token_hint("new") == "…-see"


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        ("/_inference/e5", {}, 400, "model is missing required setting [task_type]"),
        ("/_inference/rerank/e5", {}, 400, "Task type must match the task type of the existing endpoint"),
        ("/_inference/text_embedding/other", {}, 404, "Inference endpoint not found [other]"),
        (
            "/_inference/text_embedding/e5",
            {"service_settings": {"url": URL}},
            400,
            "Configuration contains settings [{url=…}] unknown to the [hugging_face] service",
        ),
        (
            "/_inference/text_embedding/e5",
            {"chunking_settings": {}},
            400,
            "Configuration contains settings [{chunking_settings=…}] unknown to the [hugging_face] service",
        ),
        ("/_inference/text_embedding/e5", b"", 400, "request body is required"),
        (
            "/_inference/text_embedding/e5",
            {"service_settings": {"rate_limit": {"requests_per_minute": 0}}},
            400,
            "Validation Failed: 1: [rate_limit] Invalid value [0]. [requests_per_minute] must be a positive integer;",
        ),
    ],
)
async def test_update_rejects_settings_that_cannot_change(
    scripted: ScriptedGateway, path: str, body: object, status: int, expected: str
) -> None:
    reply = await scripted.request("PUT", path + "/_update", body)
    assert (error_of(reply)[0], error_of(reply)[2]) == (status, expected)


async def test_delete_is_acknowledged_and_removes_the_endpoint(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("DELETE", "/_inference/text_embedding/e5?force=true")
    assert reply.json() == {"acknowledged": True, "pipelines": [], "indexes": []}
    assert await names(scripted) == []


async def test_delete_as_a_dry_run_deletes_nothing(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("DELETE", "/_inference/e5?dry_run")
    assert reply.json() == {"acknowledged": False, "pipelines": [], "indexes": []}
    assert await names(scripted) == ["e5"]
    assert error_of(await scripted.request("DELETE", "/_inference/e5?force=maybe"))[0] == 400


async def test_services_describe_what_can_be_registered(scripted: ScriptedGateway) -> None:
    for path in ("/_inference/_services", "/_inference/_services/text_embedding"):
        (service,) = (await scripted.request("GET", path)).json()
        assert (service["service"], service["name"]) == ("hugging_face", "Hugging Face")
        assert service["task_types"] == list(Task)
        assert service["configurations"]["similarity"]["supported_task_types"] == [Task.TEXT_EMBEDDING]
        assert service["configurations"]["api_key"]["sensitive"] is True
        assert service["configurations"]["rate_limit.requests_per_minute"]["type"] == "int"
    assert (await scripted.request("GET", "/_inference/_services/embedding")).json() == []


@pytest.mark.parametrize(
    ("method", "path", "verb"),
    [("PUT", NEW, "put"), ("PUT", NEW + "/_update", "update"), ("DELETE", "/_inference/e5", "delete")],
)
async def test_changes_need_the_admin_key_and_reading_any_key(
    scripted: ScriptedGateway, method: str, path: str, verb: str
) -> None:
    _, plain = await scripted.access.create("app")
    status, kind, reason = error_of(await scripted.request(method, path, form(), key=plain))
    assert (status, kind) == (403, "security_exception")
    assert reason.startswith(
        f"action [cluster:admin/xpack/inference/{verb}] is unauthorized for this API key"
    )
    assert (await scripted.request("GET", "/_inference", key=plain)).status == 200
    assert await names(scripted) == ["e5"]


async def test_responses_are_pretty_printed_on_request(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("GET", "/_inference/rerank/_all?pretty")
    assert reply.body == b'{\n  "endpoints": []\n}\n'


async def test_methods_that_are_not_served_are_a_405_and_paths_a_404(scripted: ScriptedGateway) -> None:
    assert error_of(await scripted.request("PATCH", "/_inference/e5"))[0] == 405
    assert error_of(await scripted.request("GET", "/_inference/a/b/c"))[0] == 404


async def test_an_invalid_pretty_is_rejected_before_the_request_runs(
    scripted: ScriptedGateway,
) -> None:
    for method, path in (("PUT", NEW), ("DELETE", "/_inference/e5"), ("POST", "/_inference/e5")):
        body = form() if method == "PUT" else {"input": "a"}
        reply = await scripted.request(method, f"{path}?pretty=maybe", body)
        assert error_of(reply)[:2] == (400, "illegal_argument_exception")
    assert await names(scripted) == ["e5"]
    assert scripted.script.calls == []


async def test_a_warning_of_several_lines_is_one_line_in_its_header(scripted: ScriptedGateway) -> None:
    warning = "Its last update failed.\r\nExit code: 1\n\tout of memory"
    scripted.script.facts = replace(scripted.script.facts, warnings=(warning,))
    reply = await scripted.request("PUT", NEW, form())
    assert reply.status == 200
    assert reply.headers["warning"] == '299 hubgate "Its last update failed. Exit code: 1 out of memory"'
