"""hubgate's own API: the claims of docs/api.md."""

from __future__ import annotations

import base64
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from running_gateway import copy_migrated
from scripted_gateway import ADMIN_KEY, Script

from hubgate.domain.calls import Encoding, Vectors
from hubgate.domain.endpoint import Endpoint, Source, Task
from hubgate.domain.errors import UpstreamUnreachable
from hubgate.domain.secret import Secret
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipelines
from hubgate.service.inference.vector_cache import VectorMemory
from hubgate.service.keys.access import Access
from hubgate.service.metrics import Meter
from hubgate.store.store import SqlStore
from hubgate.store.vectors.disk import DiskVectorCache
from hubgate.web.app import create_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scripted_gateway import ScriptedGateway

    from hubgate.settings import Settings
    from hubgate.web.http.asgi import AsgiApp

TOKEN = "hf_aTokenThatNobodyMayEverSee_last"
PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text("utf-8")


def routes(app: AsgiApp) -> set[str]:
    found = app._app.routes  # type: ignore[attr-defined]
    return {
        f"{method} {route.path.replace(':path', '')}"
        for route in found
        if route.path.startswith("/api")
        for method in route.methods - {"HEAD"}
    }


async def test_docs_list_exactly_the_served_routes(scripted: ScriptedGateway) -> None:
    assert set(re.findall(r"^\| `([A-Z]+ /api[^`]*)`", PAGE, re.MULTILINE)) == routes(scripted.app)


async def test_every_route_requires_an_admin_key(scripted: ScriptedGateway) -> None:
    _, plain = await scripted.access.create("app")
    asked = 0
    for route in routes(scripted.app):
        method, path = re.sub(r"\{\w+\}", "e5", route).split()
        for key, status, cause in ((plain, 403, "not_permitted"), (None, 401, "not_authenticated")):
            reply = await scripted.request(method, path, {}, key=key)
            assert (reply.status, reply.json()["error"]["cause"]) == (status, cause), route
            asked += 1
    assert asked == 2 * len(routes(scripted.app)) > 0
    assert scripted.service.registry.find("e5").name == "e5"


async def test_about_returns_versions(scripted: ScriptedGateway) -> None:
    assert set((await scripted.request("GET", "/api/about")).json()) == {"hubgate", "python", "icu"}


class TestEndpoints:
    async def test_endpoint_is_registered_shown_listed_and_deleted(self, scripted: ScriptedGateway) -> None:
        form = {"name": "fake", "source": "fake", "rate_limit": {"requests_per_minute": 7}, "cache": False}
        added = await scripted.request("POST", "/api/endpoints", form)
        assert added.status == 201
        assert added.json()["rate_limit"] == {"requests_per_minute": 7, "burst": 1}
        assert added.json()["cache"] is False
        shown = await scripted.request("GET", "/api/endpoints/fake")
        assert shown.json() == added.json()
        listed = (await scripted.request("GET", "/api/endpoints")).json()["endpoints"]
        assert [endpoint["name"] for endpoint in listed] == ["e5", "fake"]
        assert listed[1] == shown.json()
        assert (await scripted.request("DELETE", "/api/endpoints/fake")).status == 204
        for method, path in (
            ("GET", "/api/endpoints/fake"),
            ("DELETE", "/api/endpoints/fake"),
            ("POST", "/api/endpoints/fake/check"),
            ("POST", "/api/endpoints/fake/accept"),
        ):
            gone = await scripted.request(method, path)
            assert (gone.status, gone.json()["error"]["cause"]) == (404, "endpoint_not_found")

    async def test_pages_list_each_endpoint_once(self, scripted: ScriptedGateway) -> None:
        for name in ("a", "z", "m"):
            await scripted.request("POST", "/api/endpoints", {"name": name, "source": "fake"})
        whole = (await scripted.request("GET", "/api/endpoints")).json()["endpoints"]
        first = (await scripted.request("GET", "/api/endpoints?limit=3")).json()["endpoints"]
        assert [one["name"] for one in first] == ["a", "e5", "m"]
        await scripted.request("DELETE", "/api/endpoints/m")  # the next page does not depend on it
        rest = (await scripted.request("GET", "/api/endpoints?limit=3&after=m")).json()["endpoints"]
        assert [*first, *rest] == whole

    @pytest.mark.parametrize("limit", ["0", "1001", "x", "-1", "\u0663"])
    @pytest.mark.parametrize("path", ["/api/endpoints", "/api/keys", "/api/jobs"])
    async def test_invalid_limit_is_refused(self, scripted: ScriptedGateway, path: str, limit: str) -> None:
        reply = await scripted.request("GET", f"{path}?limit={quote(limit)}")
        assert (reply.status, reply.json()["error"]["cause"]) == (400, "invalid_request")
        assert "[limit] must be a whole number from 1 to 1000." in reply.json()["error"]["message"]

    async def test_endpoint_is_shown_without_token_and_fingerprint(self, scripted: ScriptedGateway) -> None:
        form = {"name": "own", "url": "http://127.0.0.1:1/", "token": TOKEN}
        added = await scripted.request("POST", "/api/endpoints", form)
        fingerprint = scripted.service.registry.find("own").facts.fingerprint
        assert fingerprint is not None
        listed = await scripted.request("GET", "/api/endpoints")
        for reply in (added, listed):
            assert TOKEN not in reply.body.decode()
            assert fingerprint not in reply.body.decode()
            assert "fingerprint" not in reply.body.decode()
        assert added.json()["token"] == "…last"
        assert added.json()["source"] == "dedicated"
        # What is not known does not stand there as null.
        assert "null" not in added.body.decode()

    @pytest.mark.parametrize(
        ("form", "expected"),
        [
            ({"source": "fake"}, "[name] is required."),
            ({"name": "x", "source": "moon"}, "[source] must be one of [router, dedicated, local, "),
            (
                {"name": "x", "source": "fake", "colour": "red"},
                "Unknown field [colour]. Valid fields: [name, ",
            ),
            (
                {"name": "x", "source": "fake", "rate_limit": {"per_hour": 1}},
                "Unknown field [per_hour] in [rate_limit]. ",
            ),
            ({"name": "x", "source": "fake", "rate_limit": {"burst": 0}}, "[burst] must be a positive"),
            (
                {"name": "x", "source": "fake", "rate_limit": {"burst": "2"}},
                "[rate_limit.burst] must be an integer, not a string.",
            ),
            (
                {"name": "x", "source": "fake", "dimensions": True},
                "[dimensions] must be an integer, not a boolean.",
            ),
            ({"name": "x", "source": "fake", "dimensions": 2.0}, "not a decimal number."),
            ({"name": "x", "source": "fake", "cache": "no"}, "[cache] must be a boolean, not a string."),
            (
                {"name": "x", "source": "fake", "prefixes": {"poem": ""}},
                "A name in [prefixes] must be one of [",
            ),
            ({"name": "x", "source": "fake", "chunking_settings": {"strategy": "?"}}, "chunkingStrategy"),
            ({"name": "X", "source": "fake"}, "Invalid inference_id"),
            ({"name": "x"}, "requires a model"),
            ({"name": "x", "source": "dedicated"}, "requires a URL"),
            ({"name": "x", "source": "local", "url": "http://127.0.0.1/"}, "cannot have a URL"),
            ({"name": "x", "source": "fake", "task": "dance"}, "[task] must be one of [text_embedding, "),
            ([], "The request body must be an object, not an array."),
            (b"", "it is empty"),
            (b"{", "not valid JSON"),
        ],
    )
    async def test_invalid_endpoint_form_is_a_400_and_stores_nothing(
        self, scripted: ScriptedGateway, form: object, expected: str
    ) -> None:
        reply = await scripted.request("POST", "/api/endpoints", form)
        assert reply.status == 400
        assert expected in reply.json()["error"]["message"]
        assert [endpoint.name for endpoint in scripted.service.registry.endpoints()] == ["e5"]

    async def test_duplicate_endpoint_name_is_a_409(self, scripted: ScriptedGateway) -> None:
        reply = await scripted.request("POST", "/api/endpoints", {"name": "e5", "source": "fake"})
        assert (reply.status, reply.json()["error"]["cause"]) == (409, "endpoint_exists")

    async def test_changed_model_is_a_424_until_it_is_accepted(self, scripted: ScriptedGateway) -> None:
        assert (await scripted.request("POST", "/api/endpoints/e5/check")).json()["name"] == "e5"
        good = scripted.script.facts
        scripted.script.facts = type(good)(model="org/other", engine=good.engine)
        scripted.script.answer = lambda call: Vectors(
            items=[b"[0.5,0.5]"] * len(call.texts), encoding=Encoding.JSON
        )
        checked = await scripted.request("POST", "/api/endpoints/e5/check")
        called = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "a"})
        assert (checked.status, called.status) == (424, 424)
        error = checked.json()["error"]
        assert error["cause"] == "model_changed"
        assert "its model was org/model and is org/other" in error["message"]
        assert "hubgate accept e5" in error["remedy"]
        accepted = await scripted.request("POST", "/api/endpoints/e5/accept")
        assert accepted.json()["facts"]["model"] == "org/other"
        called = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "a"})
        assert called.status == 200

    async def test_error_has_cause_message_and_remedy(self, scripted: ScriptedGateway) -> None:
        def fail(call: object) -> Any:
            raise UpstreamUnreachable("Nothing listens.", remedy="Start it.")

        scripted.script.answer = fail
        reply = await scripted.request("POST", "/api/endpoints", {"name": "x", "source": "fake"})
        assert reply.status == 502
        assert reply.json() == {
            "error": {"cause": "connection_lost", "message": "Nothing listens.", "remedy": "Start it."}
        }


class TestKeys:
    async def test_key_is_shown_once_and_rejected_after_revocation(self, scripted: ScriptedGateway) -> None:
        form = {"name": "dify", "default_endpoint": "e5", "bulk": True, "input_type": "ingest"}
        made = await scripted.request("POST", "/api/keys", form)
        assert made.status == 201
        plain = made.json().pop("key")
        assert (await scripted.request("GET", "/v1/models", key=plain)).status == 200
        listed = await scripted.request("GET", "/api/keys")
        assert plain not in listed.body.decode()
        (row,) = (key for key in listed.json()["keys"] if key["name"] == "dify")
        assert {name: row[name] for name in form} == form
        rights = {"endpoints", "requests_per_minute", "tokens_per_minute", "expires_at"}
        assert set(row) == {*form, *rights, "id", "admin", "created_at", "last_used_at"}
        assert (await scripted.request("DELETE", f"/api/keys/{row['id']}")).status == 204
        assert (await scripted.request("GET", "/v1/models", key=plain)).status == 401

    async def test_pages_list_each_key_once_oldest_first(self, scripted: ScriptedGateway) -> None:
        for number in range(6):
            await scripted.request("POST", "/api/keys", {"name": f"app{number}"})
        whole = (await scripted.request("GET", "/api/keys")).json()["keys"]
        assert [key["name"] for key in whole][-6:] == [f"app{number}" for number in range(6)]
        paged: list[dict[str, Any]] = []
        while True:
            after = f"&after={paged[-1]['id']}" if paged else ""
            page = (await scripted.request("GET", f"/api/keys?limit=2{after}")).json()["keys"]
            paged += page
            if len(page) < 2:
                break
        assert [key["id"] for key in paged] == [key["id"] for key in whole]
        await scripted.request("DELETE", "/api/keys/app0")
        gone = await scripted.request("GET", f"/api/keys?after={whole[-6]['id']}")
        assert (gone.status, gone.json()["error"]["cause"]) == (404, "not_found")

    async def test_key_is_revoked_by_a_name_with_a_slash(self, scripted: ScriptedGateway) -> None:
        await scripted.request("POST", "/api/keys", {"name": "team/one"})
        assert (await scripted.request("DELETE", "/api/keys/team/one")).status == 204
        gone = await scripted.request("DELETE", "/api/keys/team/one")
        assert (gone.status, gone.json()["error"]["cause"]) == (404, "not_found")

    @pytest.mark.parametrize(
        ("form", "status"),
        [
            ({}, 400),
            ({"name": ""}, 400),
            ({"name": "admin"}, 400),
            ({"name": "x", "admin": "yes"}, 400),
            ({"name": "x", "input_type": "poem"}, 400),
            ({"name": "x", "rights": []}, 400),
            ({"name": "x", "default_endpoint": "none"}, 404),
            ({"name": "x", "default_endpoint": ""}, 404),
        ],
    )
    async def test_invalid_key_form_is_rejected(
        self, scripted: ScriptedGateway, form: object, status: int
    ) -> None:
        assert (await scripted.request("POST", "/api/keys", form)).status == status
        assert [key["name"] for key in (await scripted.request("GET", "/api/keys")).json()["keys"]] == [
            "admin"
        ]


class TestSecret:
    async def test_rotation_returns_the_number_of_resealed_tokens(self, scripted: ScriptedGateway) -> None:
        draft = Endpoint(name="own", task=Task.TEXT_EMBEDDING, source=Source.FAKE)
        await scripted.service.registry.register(draft, Secret(TOKEN))
        reply = await scripted.request("POST", "/api/secret/rotate")
        assert (reply.status, reply.json()) == (200, {"resealed": 1})


class TestCache:
    @pytest.fixture
    async def remembering(
        self, scripted: ScriptedGateway, settings: Settings, tmp_path: Path
    ) -> AsyncIterator[ScriptedGateway]:
        """The application with the whole pipeline and a cache."""
        home = tmp_path / "other" / "home"
        settings = replace(settings, home=home, secret_key_file=home.with_name("config") / "secret.key")
        copy_migrated(settings)
        store = await SqlStore.open(settings)
        memory = VectorMemory(DiskVectorCache(home / "vectors", 1 << 20))
        script = Script()
        gateway = Gateway(store, script, Pipelines(memory.cache, time.monotonic))
        access, _ = await Access.load(store, ADMIN_KEY)
        meter = Meter(gateway.pipelines)
        await gateway.registry.register(
            Endpoint(name="e5", task=Task.TEXT_EMBEDDING, source=Source.FAKE), None
        )
        await gateway.registry.register(
            Endpoint(name="off", task=Task.TEXT_EMBEDDING, source=Source.FAKE, cached=False), None
        )
        app = create_app(
            gateway,
            access,
            meter,
            memory,
            hub=scripted.hub,
            parts=scripted.parts,
            max_body_bytes=1 << 20,
            max_total_body_bytes=1 << 20,
            keys_in_path=False,
        )
        yield replace(scripted, app=app, script=script, service=gateway, access=access, meter=meter)
        await gateway.close()
        await memory.close()
        await store.close()

    async def test_cache_entries_are_counted_and_can_be_deleted(self, remembering: ScriptedGateway) -> None:
        for texts in (["a", "b"], ["b", "c"]):
            body = {"model": "e5", "input": texts}
            assert (await remembering.request("POST", "/v1/embeddings", body)).status == 200
        stats = (await remembering.request("GET", "/api/cache")).json()
        assert stats["enabled"] is True
        assert stats["memory"]["entries"] == 1  # the only one that was asked for again
        assert stats["endpoints"] == {"e5": {"hits": 1, "misses": 3}}
        assert (await remembering.request("DELETE", "/api/cache")).status == 204
        stats = (await remembering.request("GET", "/api/cache")).json()
        assert stats["memory"]["entries"] == 0

    async def test_gateway_without_a_cache_reports_it_as_disabled(self, scripted: ScriptedGateway) -> None:
        assert (await scripted.request("GET", "/api/cache")).json() == {"enabled": False}
        assert (await scripted.request("DELETE", "/api/cache")).status == 204


async def test_key_digests_are_not_shown(scripted: ScriptedGateway) -> None:
    key, _ = await scripted.access.create("app")
    listed = json.dumps((await scripted.request("GET", "/api/keys")).json())
    assert key.digest.hex() not in listed
    assert base64.b64encode(key.digest).decode() not in listed
