"""A gateway that is killed while it creates Inference Endpoints goes on with each of them after its restart."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

from gateway_process import Home
from lookalikes.endpoints.world import E5
from lookalikes.hub_api import MANAGER_TOKEN
from running_gateway import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from gateway_process import GatewayProcess
    from lookalikes.deployments import DeploymentsApi
    from lookalikes.hub_api import HubApi

KEY = "an-admin-key-of-this-test"
STAGES = {"sent": "planned", "waiting": "created", "running": "running", "done": "registered"}


def created(gateway: GatewayProcess, name: str) -> dict[str, Any]:
    form: dict[str, Any] = {"model": E5, "name": name, "instance": "intel-spr/x2", "region": "us-east-1"}
    plan = gateway.request("POST", "/api/deployments/plan", form, key=KEY).json()
    reply = gateway.request("POST", "/api/deployments", {**form, "confirm": plan["confirm"]}, key=KEY)
    assert reply.status == 202, reply.body
    found: dict[str, Any] = reply.json()
    return found


def stages(gateway: GatewayProcess) -> dict[str, str]:
    time.sleep(0.2)  # a look asks the API twice; hundreds of them would slow down what they wait for
    listed = gateway.request("GET", "/api/deployments", key=KEY).json()["deployments"]
    return {one["name"]: one["stage"] for one in listed}


def test_kill_9_in_each_stage_loses_no_deployment_and_makes_no_second_one(
    tmp_path: Path, hub_site: HubApi, deployment_site: DeploymentsApi
) -> None:
    site, home = deployment_site, Home(tmp_path, KEY)
    env = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": hub_site.url,
        "HUBGATE_ENDPOINTS_API_URL": f"{site.url}/v2",
        "HUBGATE_ENDPOINTS_CATALOG_URL": f"{site.url}/api/v1/catalog",
    }
    assert home.run("add", "words", "--fake").status == 0  # else it would load a model
    with home.serve(**env) as gateway:
        hosts = ["huggingface", site.url]
        connection = {"name": "hf", "token": MANAGER_TOKEN, "hosts": hosts}
        assert gateway.request("POST", "/api/connections", connection, key=KEY).status == 201
        created(gateway, "done")
        site.advance(100)
        eventually(lambda: stages(gateway) == {"done": "registered"})
        server, site.servers[E5] = site.servers[E5], "http://127.0.0.1:9"
        created(gateway, "running")
        site.advance(100)
        eventually(lambda: stages(gateway)["running"] == "running")
        created(gateway, "waiting")
        site.fail("failing", only="/sent", method="GET")  # so it cannot be found yet
        site.cut("POST", after=True)
        assert created(gateway, "sent")["stage"] == "planned"
        site.fail(None)
        site.fail("failing", only="/endpoint/acme/", method="GET")
        assert stages(gateway) == STAGES
        site.asked.clear()
        gateway.signal(signal.SIGKILL)
        gateway.wait()
    site.fail(None)
    site.servers[E5] = server
    site.advance(100)
    with home.serve(**env) as gateway:
        eventually(lambda: set(stages(gateway).values()) == {"registered"})
        assert set(stages(gateway)) == set(STAGES)
        endpoints = gateway.request("GET", "/api/endpoints", key=KEY).json()["endpoints"]
        assert {one["name"] for one in endpoints} == {*STAGES, "words"}
    posted = [seen for seen in site.asked if seen.method != "GET" and "/served/" not in seen.path]
    assert posted == []
    assert sorted(name for _, name in site.hosted) == sorted(STAGES)
