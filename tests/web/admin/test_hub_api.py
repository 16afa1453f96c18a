"""The models of the Hub that can be registered, through hubgate's own API."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes.deployments import DeploymentsApi, deployment, running_deployments
from lookalikes.hub_api import READ_TOKEN, TOKEN, HubApi
from scripted_gateway import open_scripted_gateway
from starlette.requests import Request

from hubgate.domain.endpoint import Endpoint, Source, Task
from hubgate.domain.errors import NotFound
from hubgate.domain.secret import Secret
from hubgate.web.admin.hub import HubApi as Handlers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from scripted_gateway import Reply, ScriptedGateway

    from hubgate.settings import Settings

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def endpoints_site() -> Iterator[DeploymentsApi]:
    with running_deployments() as site:
        yield site


@pytest.fixture
async def gateway(
    settings: Settings, tmp_path: Path, hub_site: HubApi, endpoints_site: DeploymentsApi
) -> AsyncIterator[ScriptedGateway]:
    """The application with a Hub; the endpoint `ada` has two tokens, the first of which is `TOKEN`."""
    settings = replace(settings, hf_endpoint=hub_site.url, endpoints_api_url=endpoints_site.url + "/v2")
    async with open_scripted_gateway(settings) as gateway:
        bearing = Endpoint(name="ada", task=Task.TEXT_EMBEDDING, source=Source.FAKE)
        await gateway.service.registry.register(bearing, Secret(f"{TOKEN}\nhf_spare"))
        yield gateway


async def get(gateway: ScriptedGateway, path: str) -> Reply:
    return await gateway.request("GET", f"/api/hub{path}")


async def models(gateway: ScriptedGateway, query: str) -> list[dict[str, Any]]:
    reply = await get(gateway, f"/models?{query}")
    assert reply.status == 200, reply.body
    found: list[dict[str, Any]] = reply.json()["models"]
    return found


async def test_models_are_searched_by_task_text_and_serving_status(gateway: ScriptedGateway) -> None:
    for word in ("text_embedding", "feature-extraction", "sentence-similarity"):
        assert [model["name"] for model in await models(gateway, f"task={word}&limit=2")] == [
            "BAAI/bge-m3",
            MINILM,
        ]
    assert [model["name"] for model in await models(gateway, "search=mini&served=true&task=")] == [MINILM]
    assert MINILM not in [model["name"] for model in await models(gateway, "served=false")]


async def test_model_is_shown_with_only_the_known_fields(
    gateway: ScriptedGateway,
) -> None:
    (found,) = await models(gateway, "search=MiniLM")
    assert found["served"] is True
    assert found["served_by"] == [
        {
            "provider": "hf-inference",
            "task": "sentence-similarity",
            "status": "live",
            "provider_model": MINILM,
        }
    ]
    assert found["tasks"] == ["text_embedding"]
    assert "dimensions" not in found
    whole = (await get(gateway, f"/models/{MINILM}")).json()
    assert (whole["dimensions"], whole["max_input_tokens"]) == (384, 256)
    assert (whole["prefixes"], whole["prefix_source"]) == ({}, "table")


async def test_model_is_shown_with_the_prefixes_that_a_registration_finds(gateway: ScriptedGateway) -> None:
    shown = (await get(gateway, "/models/intfloat/e5-small-v2")).json()
    assert (shown["prefixes"]["search"], shown["prefixes"]["ingest"]) == ("query: ", "passage: ")
    assert shown["prefix_source"] == "table"
    reranker = (await get(gateway, "/models/org/reranker")).json()
    assert not {"prefixes", "prefix_source"} & reranker.keys()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("task=dance", "[task] is not valid: dance"),
        ("served=perhaps", "[served]"),
        ("limit=many", "[limit] must be a whole number"),
        ("limit=1000", "from 1 to 100"),
        ("limit=" + "9" * 5000, "[limit] must be a whole number"),
    ],
)
async def test_invalid_model_query_is_a_400(gateway: ScriptedGateway, query: str, expected: str) -> None:
    reply = await get(gateway, f"/models?{query}")
    assert reply.status == 400
    assert expected in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "status", "cause"),
    [("/models/org/none", 404, "model_not_found"), ("/models/a/b/c", 400, "invalid_request")],
)
async def test_missing_model_is_an_error_with_its_cause(
    gateway: ScriptedGateway, path: str, status: int, cause: str
) -> None:
    reply = await get(gateway, path)
    assert (reply.status, reply.json()["error"]["cause"]) == (status, cause)


async def test_hub_is_not_called_without_a_token(gateway: ScriptedGateway, hub_site: HubApi) -> None:
    for path in ("/whoami", "/endpoints?namespace=acme"):
        reply = await get(gateway, path)
        assert (reply.status, reply.json()["error"]["cause"]) == (400, "invalid_request")
        assert "x-hf-token" in reply.json()["error"]["remedy"]
    assert hub_site.asked == []


async def test_whoami_uses_the_first_token_of_the_named_endpoint(
    gateway: ScriptedGateway, hub_site: HubApi
) -> None:
    user = (await get(gateway, "/whoami?endpoint=ada")).json()
    assert (user["name"], user["organisations"]) == ("ada", ["acme"])
    assert (user["calls_providers"], user["calls_endpoints"]) == (False, True)
    assert hub_site.asked[-1].token == TOKEN
    assert (await get(gateway, "/whoami?endpoint=e5")).status == 400
    assert (await get(gateway, "/whoami?endpoint=nobody")).status == 404


async def test_whoami_prefers_the_header_token_and_accepts_a_connection(gateway: ScriptedGateway) -> None:
    await gateway.service.connections.add("team", Secret(TOKEN), ["huggingface"])
    handlers = Handlers(gateway.hub, gateway.service)
    given = await handlers.whoami(request("endpoint=ada", token=READ_TOKEN))
    assert b'"bob"' in bytes(given.body)
    assert b'"ada"' in bytes((await handlers.whoami(request("connection=team"))).body)
    with pytest.raises(NotFound, match=r"\[other\]"):
        await handlers.whoami(request("connection=other"))


def request(query: str, token: str = "") -> Request:
    headers = [(b"x-hf-token", token.encode())] if token else []
    return Request({"type": "http", "headers": headers, "query_string": query.encode()})


async def test_inference_endpoints_are_listed(
    gateway: ScriptedGateway, endpoints_site: DeploymentsApi
) -> None:
    url = "https://x1.us-east-1.aws.endpoints.huggingface.cloud"
    endpoints_site.items["acme"] = [deployment("e5", url=url), deployment("old", state="paused")]
    for query in ("endpoint=ada&namespace=acme", "endpoint=ada"):
        e5, old = (await get(gateway, f"/endpoints?{query}")).json()["endpoints"]
        assert (e5["name"], e5["url"], e5["state"], e5["engine"]) == ("e5", url, "running", "tei")
        assert (old["state"], "url" in old) == ("paused", False)


async def test_resuming_is_confirmed_with_its_price_and_audited(
    gateway: ScriptedGateway, endpoints_site: DeploymentsApi
) -> None:
    endpoints_site.items["acme"] = [deployment("old", state="paused")]
    path = "/api/hub/endpoints/acme/old/resume?endpoint=ada"
    for query, cause in (("", "not_confirmed"), ("&confirm_price=0.01", "price_changed")):
        refused = await gateway.request("POST", path + query)
        assert (refused.status, refused.json()["error"]["cause"]) == (409, cause)
    assert {seen.method for seen in endpoints_site.asked} == {"GET"}
    resumed = await gateway.request("POST", f"{path}&confirm_price=0.067")
    assert (resumed.status, resumed.json()["state"]) == (200, "initializing")
    newest = (await gateway.request("GET", "/api/audit?limit=1")).json()["changes"][0]
    assert (newest["verb"], newest["subject"]) == ("deployment.resume", "acme/old")
    assert newest["changes"]["dollars_per_hour"] == [0.0, 0.067]


async def test_resuming_over_the_hourly_limit_is_refused(
    settings: Settings, hub_site: HubApi, endpoints_site: DeploymentsApi
) -> None:
    settings = replace(
        settings,
        hf_endpoint=hub_site.url,
        endpoints_api_url=endpoints_site.url + "/v2",
        max_dollars_per_hour=0.1,
    )
    endpoints_site.items["acme"] = [
        deployment("e5", url="https://a.example"),
        deployment("old", state="paused"),
    ]
    async with open_scripted_gateway(settings) as gateway:
        path = "/api/hub/endpoints/acme/old/resume?confirm_price=1"
        refused = await gateway.request("POST", path, more_headers={"x-hf-token": TOKEN})
    error = refused.json()["error"]
    assert (refused.status, error["cause"]) == (403, "over_budget")
    assert "$0.134 an hour with [old]" in error["message"]
    assert {seen.method for seen in endpoints_site.asked} == {"GET"}


async def test_hub_failure_is_an_error_with_its_cause(gateway: ScriptedGateway, hub_site: HubApi) -> None:
    hub_site.fail("limited")
    reply = await get(gateway, "/models")
    assert (reply.status, reply.json()["error"]["cause"]) == (429, "overloaded")
    assert reply.headers["retry-after"] == "55"
    hub_site.fail("wrong-token")
    reply = await get(gateway, "/whoami?endpoint=ada")
    assert (reply.status, reply.json()["error"]["cause"]) == (424, "wrong_token")
    assert TOKEN not in reply.body.decode()


async def test_gateway_serves_without_the_hub(gateway: ScriptedGateway, hub_site: HubApi) -> None:
    hub_site.shutdown()
    hub_site.server_close()
    reply = await get(gateway, "/models")
    assert (reply.status, reply.json()["error"]["cause"]) == (502, "connection_refused")
    assert "type names, URLs and tasks yourself" in reply.json()["error"]["remedy"]
    served = await gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": "a text"})
    assert served.status == 200
