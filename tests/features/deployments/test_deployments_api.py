"""Creating and managing Inference Endpoints through hubgate's own API."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from lookalikes.endpoints.world import E5, PRICE
from lookalikes.hub_api import MANAGER_TOKEN, TOKEN
from scripted_gateway import open_scripted_gateway

from hubgate.domain.secret import Secret
from hubgate.features.deployments.follower import Follower
from hubgate.features.deployments.model import Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lookalikes.deployments import DeploymentsApi
    from lookalikes.hub_api import HubApi
    from scripted_gateway import Reply, ScriptedGateway

    from hubgate.settings import Settings

FORM = {"model": E5, "name": "deployed", "instance": "intel-spr/x2", "region": "us-east-1"}
ONE = "/acme/deployed"


@pytest.fixture
async def gateway(
    settings: Settings, hub_site: HubApi, deployment_site: DeploymentsApi
) -> AsyncIterator[ScriptedGateway]:
    settings = replace(
        settings,
        hf_endpoint=hub_site.url,
        endpoints_api_url=f"{deployment_site.url}/v2",
        endpoints_catalog_url=f"{deployment_site.url}/api/v1/catalog",
    )
    async with open_scripted_gateway(settings) as gateway:
        await gateway.service.connections.add("hf", Secret(MANAGER_TOKEN))
        yield gateway


def follower_of(gateway: ScriptedGateway) -> Follower:
    """What follows deployments in the background."""
    owners = (getattr(run, "__self__", None) for run in gateway.parts.background)
    return next(owner for owner in owners if isinstance(owner, Follower))


async def ask(gateway: ScriptedGateway, method: str, path: str, body: object = None) -> Reply:
    return await gateway.request(method, f"/api/deployments{path}", body)


async def created(gateway: ScriptedGateway, **changes: Any) -> dict[str, Any]:
    plan = (await ask(gateway, "POST", "/plan", {**FORM, **changes})).json()
    reply = await ask(gateway, "POST", "", {**FORM, **changes, "confirm": plan["confirm"]})
    assert reply.status == 202, reply.body
    found: dict[str, Any] = reply.json()
    return found


async def test_a_model_is_planned_confirmed_created_and_registered(
    gateway: ScriptedGateway, deployment_site: DeploymentsApi
) -> None:
    plan = (await ask(gateway, "POST", "/plan", FORM)).json()
    assert plan["price"] == pytest.approx(
        {
            "replica": PRICE,
            "at_least": 0.0,
            "at_most": PRICE,
            "per_day": 24 * PRICE,
            "per_month": 730 * PRICE,
        }
    )
    assert plan["body"]["tags"][1] == f"hubgate-{plan['body']['tags'][1].partition('-')[2]}"
    assert {fit["fits"] for fit in plan["fits"]} == {True}
    unconfirmed = await ask(gateway, "POST", "", FORM)
    assert (unconfirmed.status, unconfirmed.json()["error"]["cause"]) == (409, "not_confirmed")
    deployment_site.change_price("aws", "intel-spr", "x2", 0.07)
    dearer = await ask(gateway, "POST", "", {**FORM, "confirm": plan["confirm"]})
    assert (dearer.status, dearer.json()["error"]["cause"]) == (409, "price_changed")
    assert deployment_site.hosted == {}
    assert (await created(gateway))["stage"] == "created"
    deployment_site.advance(100)
    await follower_of(gateway).follow()
    shown = (await ask(gateway, "GET", ONE)).json()
    assert (shown["stage"], shown["state"], shown["used_by"]) == ("registered", "running", ["deployed"])
    assert (shown["instance"], shown["dollars_now"], shown["dollars_at_most"]) == ("intel-spr/x2", 0.07, 0.07)
    endpoint = (await gateway.request("GET", "/api/endpoints/deployed")).json()
    assert (endpoint["url"], endpoint["connection"]) == (shown["url"], "hf")
    measured = await gateway.request("POST", "/api/endpoints/deployed/measure", {"texts": ["a"]})
    assert measured.json()["allowance"]["dollars_per_hour"] == 0.07


async def test_deployments_are_listed_with_their_sum(gateway: ScriptedGateway) -> None:
    await created(gateway)
    await created(gateway, name="second", max_replicas=2)
    listed = (await ask(gateway, "GET", "")).json()
    assert [one["name"] for one in listed["deployments"]] == ["deployed", "second"]
    assert (listed["dollars_now"], listed["dollars_at_most"]) == (0.0, round(3 * PRICE, 4))


async def test_those_of_a_registered_endpoint_are_asked_for_with_its_own_token(
    gateway: ScriptedGateway, deployment_site: DeploymentsApi
) -> None:
    await created(gateway)
    await created(gateway, name="second")
    deployment_site.advance(100)
    await follower_of(gateway).follow()
    own = {"connection": None, "token": MANAGER_TOKEN, "rate_limit": {"requests_per_minute": 60}}
    assert (await gateway.request("PATCH", "/api/endpoints/deployed", own)).status == 200
    await gateway.service.connections.add("another", Secret(TOKEN))
    listed = (await ask(gateway, "GET", "?endpoint=deployed")).json()
    assert [one["name"] for one in listed["deployments"]] == ["deployed"]
    assert listed["dollars_at_most"] == PRICE
    nameless = {"name": "own", "url": "http://127.0.0.1:1/", "token": MANAGER_TOKEN}
    assert (await gateway.request("POST", "/api/endpoints", nameless)).status == 201
    assert (await ask(gateway, "GET", "?endpoint=own")).json()["deployments"] == []
    assert (await ask(gateway, "GET", "?endpoint=nothing")).status == 404


async def test_hardware_is_filtered(gateway: ScriptedGateway) -> None:
    path = "/hardware?vendor=aws&region=us-east-1&accelerator=gpu&max_price=1"
    found = (await ask(gateway, "GET", path)).json()["hardware"]
    assert [one["instance"] for one in found] == ["nvidia-t4/x1", "nvidia-l4/x1"]
    assert found[1]["replicas_left"] == 4
    assert (await ask(gateway, "GET", "/hardware?max_price=cheap")).status == 400


async def test_verbs_tell_and_confirm_what_they_cost(
    gateway: ScriptedGateway, deployment_site: DeploymentsApi
) -> None:
    await created(gateway)
    deployment_site.advance(100)
    dry = (await ask(gateway, "POST", f"{ONE}/pause?dry_run=true")).json()
    assert (dry["dry_run"], dry["dollars_per_hour"]) == (True, [PRICE, 0.0])
    assert deployment_site.one("deployed").state == "running"
    zero = (await ask(gateway, "POST", f"{ONE}/zero")).json()
    assert zero["deployment"]["state"] == "scaledToZero"
    paused = (await ask(gateway, "POST", f"{ONE}/pause")).json()
    assert (paused["dry_run"], paused["deployment"]["state"]) == (False, "paused")
    refused = await ask(gateway, "POST", f"{ONE}/resume")
    assert (refused.status, refused.json()["error"]["cause"]) == (409, "not_confirmed")
    assert (await ask(gateway, "POST", f"{ONE}/resume?confirm_price=0.067")).status == 200
    more = {"max_replicas": 2, "environment": {"LOG": "x"}, "arguments": ["--x"]}
    dearer = await ask(gateway, "PATCH", f"{ONE}?confirm_price=0.067", more)
    assert (dearer.status, dearer.json()["error"]["cause"]) == (409, "price_changed")
    edited = (await ask(gateway, "PATCH", f"{ONE}?confirm_price=0.2", more)).json()
    assert edited["deployment"]["max_replicas"] == 2


async def test_deleting_needs_the_name(gateway: ScriptedGateway, deployment_site: DeploymentsApi) -> None:
    await created(gateway)
    deployment_site.advance(100)
    await follower_of(gateway).follow()
    dry = (await ask(gateway, "DELETE", f"{ONE}?dry_run=true")).json()
    assert (dry["used_by"], dry["dry_run"]) == (["deployed"], True)
    assert (await ask(gateway, "DELETE", ONE)).json()["error"]["cause"] == "not_confirmed"
    used = await ask(gateway, "DELETE", f"{ONE}?confirm=deployed")
    assert (used.status, used.json()["error"]["cause"]) == (409, "in_use")
    assert (await ask(gateway, "DELETE", f"{ONE}?confirm=deployed&force=true")).json()["dry_run"] is False
    assert (await ask(gateway, "GET", ONE)).status == 404
    assert (await ask(gateway, "DELETE", f"{ONE}?force=perhaps")).status == 400


async def test_a_dry_run_of_create_is_a_plan(
    gateway: ScriptedGateway, deployment_site: DeploymentsApi
) -> None:
    plan = (await ask(gateway, "POST", "?dry_run=true", FORM)).json()
    assert plan["price"]["at_most"] == PRICE
    assert deployment_site.hosted == {}


async def test_the_right_to_manage_is_told_before_the_form(gateway: ScriptedGateway) -> None:
    whoami = "/api/hub/whoami?connection=hf"
    assert (await gateway.request("GET", whoami)).json()["manages_endpoints"] is True
    await gateway.service.connections.replace("hf", Secret(TOKEN))
    assert (await gateway.request("GET", whoami)).json()["manages_endpoints"] is False
    refused = await ask(gateway, "POST", "/plan", FORM)
    assert (refused.status, refused.json()["error"]["cause"]) == (403, "token_lacks_scope")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/plan", {}),
        ("POST", "/plan", {**FORM, "colour": "red"}),
        ("POST", "/plan", {**FORM, "min_replicas": 2}),
        ("POST", "/plan", {**FORM, "type": "protected"}),
        ("PATCH", ONE, {"max_replicas": "many"}),
        ("POST", f"{ONE}/resume?confirm_price=nan", None),
    ],
)
async def test_invalid_requests_are_a_400(
    gateway: ScriptedGateway, method: str, path: str, body: object
) -> None:
    assert (await ask(gateway, method, path, body)).status == 400


async def test_secrets_are_in_no_reply_and_no_exported_configuration(gateway: ScriptedGateway) -> None:
    secrets = {"secrets": {"KEY": "a-secret-value"}, "image": "me/tei:1", "engine": "tei"}
    registry = {"registry_username": "me", "registry_password": "registry-password"}
    plan = await ask(gateway, "POST", "/plan", {**FORM, **secrets, **registry})
    assert plan.json()["body"]["model"]["secrets"] == {"KEY": "***"}
    record = await created(gateway, **secrets, **registry)
    replies = [
        plan.body,
        json.dumps(record).encode(),
        (await ask(gateway, "GET", "")).body,
        (await gateway.request("GET", "/api/config")).body,
        (await gateway.request("GET", "/api/audit")).body,
    ]
    for reply in replies:
        assert b"a-secret-value" not in reply
        assert b"registry-password" not in reply
    (stored,) = (await ask(gateway, "GET", "")).json()["deployments"]
    assert stored["stage"] == Stage.CREATED
