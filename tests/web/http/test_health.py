"""The probes, the metrics and the root."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubgate import __version__
from hubgate.domain.endpoint import Endpoint, Source, Task
from hubgate.domain.errors import RuntimeFailed

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway


async def test_healthz_is_ok(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("GET", "/healthz", key=None)
    assert (reply.status, reply.json()) == (200, {"status": "ok"})


async def test_readyz_is_ready_and_counts_local_models_that_are_not(
    scripted: ScriptedGateway,
) -> None:
    assert (await scripted.request("GET", "/readyz", key=None)).json() == {"status": "ready"}
    await scripted.service.registry.register(
        Endpoint(name="local", task=Task.TEXT_EMBEDDING, source=Source.LOCAL, model="org/model"), None
    )

    def fail(call: object) -> Any:
        raise RuntimeFailed("The weights are gone.")

    good, scripted.script.answer = scripted.script.answer, fail
    await scripted.service.start()
    reply = await scripted.request("GET", "/readyz", key=None)
    assert (reply.status, reply.json()) == (200, {"status": "ready", "unready_endpoints": 1})
    await scripted.service.startup.settled()
    reply = await scripted.request("GET", "/readyz", key=None)
    assert (reply.status, reply.json()) == (200, {"status": "ready", "unready_endpoints": 1})
    scripted.script.answer = good
    assert (await scripted.request("POST", "/api/endpoints/local/check")).status == 200
    assert (await scripted.request("GET", "/readyz", key=None)).json() == {"status": "ready"}


async def test_readyz_is_503_while_the_first_model_is_registered(scripted: ScriptedGateway) -> None:
    service = scripted.service
    kept = service.registry.find("e5")
    for name in list(service.live.names()):
        await service.registry.remove(name)
    assert (await scripted.request("GET", "/readyz", key=None)).status == 200
    service.startup.load("first", asyncio.Event().wait)
    reply = await scripted.request("GET", "/readyz", key=None)
    assert (reply.status, reply.json()) == (503, {"status": "starting", "unready_endpoints": 1})
    await service.registry.register(kept, None)
    reply = await scripted.request("GET", "/readyz", key=None)
    assert (reply.status, reply.json()) == (200, {"status": "ready", "unready_endpoints": 1})


async def test_metrics_are_prometheus_text_and_all_are_documented(scripted: ScriptedGateway) -> None:
    _, plain = await scripted.access.create("app")
    await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "a"}, key=plain)
    reply = await scripted.request("GET", "/metrics", key=plain)
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", reply.body.decode(), re.MULTILINE))
    exposed = {name for name in types if not name.endswith("_created")}
    page = (Path(__file__).parents[3] / "docs" / "api.md").read_text("utf-8")
    only_with_more_parts = {"hubgate_alone", "hubgate_stale_seconds"} | {
        f"hubgate_stored_vectors_{count}_total" for count in ("hits", "misses", "dropped")
    }
    assert exposed | only_with_more_parts == set(re.findall(r"`(hubgate_\w+)`", page))


async def test_root_redirects_a_browser_to_the_console(scripted: ScriptedGateway) -> None:
    page = await scripted.request("GET", "/", key=None, accept="text/html")
    assert page.status == 303
    assert page.headers["location"] == "/ui"


async def test_root_returns_elasticsearch_info_to_other_clients(scripted: ScriptedGateway) -> None:
    await scripted.service.registry.register(
        Endpoint(name="local", task=Task.TEXT_EMBEDDING, source=Source.LOCAL, model="org/model"), None
    )
    info = (await scripted.request("GET", "/")).json()
    assert info["version"]["number"].startswith("9.4")
    assert info["tagline"] == "You Know, for Search"
    assert info["hubgate"] == {"version": __version__, "local_endpoints": ["local"]}


async def test_head_of_the_root_answers_elasticsearchs_ping(scripted: ScriptedGateway) -> None:
    assert (await scripted.request("HEAD", "/")).status == 200
