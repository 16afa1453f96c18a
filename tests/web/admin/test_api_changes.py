"""hubgate's own API: editing, cloning, disabling, connections, the rights of keys on every face, usage and the audit log."""

from __future__ import annotations

import csv
import io
import json
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from hubgate.domain.chunking import ChunkingSettings
from hubgate.domain.endpoint import (
    Endpoint,
    Engine,
    InputType,
    Precision,
    Similarity,
    Source,
    Task,
)
from hubgate.domain.errors import UpstreamUnreachable
from hubgate.domain.records import HOUR, Slot, Tally
from hubgate.features.usage.store import SqlUsage
from hubgate.features.usage.usage import MAX_ROWS
from hubgate.web.schemas.endpoint import EndpointForm

if TYPE_CHECKING:
    from scripted_gateway import Reply, ScriptedGateway


TOKEN = "hf_aTokenThatNobodyMayEverSee_last"


async def sent(gateway: ScriptedGateway, method: str, path: str, body: object = None, **how: Any) -> Any:
    """The reply to a request that must succeed."""
    reply = await gateway.request(method, path, body, **how)
    assert reply.status < 300, reply.body
    return reply.json() if reply.body else None


def error_of(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json()["error"]["cause"]


def fail(_: object) -> Any:
    raise UpstreamUnreachable("Nothing listens.", remedy="Start it.")


async def embed(gateway: ScriptedGateway, key: str, name: str = "e5") -> Reply:
    return await gateway.request("POST", "/v1/embeddings", {"model": name, "input": "a"}, key=key)


class TestEndpoints:
    async def test_patch_changes_only_the_given_settings(self, scripted: ScriptedGateway) -> None:
        form = {
            "name": "own",
            "url": "http://127.0.0.1:1/",
            "token": TOKEN,
            "rate_limit": {"requests_per_minute": 7, "burst": 2},
            "prefixes": {"search": "query: "},
            "chunking_settings": {"strategy": "word", "max_chunk_size": 50, "overlap": 5},
            "bill_to": "team",
            "timeout": 2.5,
        }
        before = await sent(scripted, "POST", "/api/endpoints", form)
        changed = await sent(
            scripted, "PATCH", "/api/endpoints/own", {"rate_limit": {"burst": 3}, "cache": False}
        )
        assert changed == {
            **before,
            "cache": False,
            "rate_limit": {"requests_per_minute": 7, "burst": 3},
        }
        assert changed["token"] == "…last"
        reset = await sent(
            scripted,
            "PATCH",
            "/api/endpoints/own",
            {"rate_limit": None, "timeout": None, "chunking_settings": {"strategy": "none"}, "token": None},
        )
        assert reset["rate_limit"] == {"requests_per_minute": 3000, "burst": 1}
        assert reset["chunking_settings"] == {"strategy": "none"}
        assert not {"timeout", "token"} & set(reset)

    @pytest.mark.parametrize(
        ("changes", "status", "expected"),
        [
            ({"colour": "red"}, 400, "Unknown field [colour]."),
            ({"colour": None}, 400, "Unknown field [colour]."),
            ({"idle_minutes": 30}, 400, "Unknown field [idle_minutes]: hubgate no longer pauses or wakes"),
            ({"wake": None}, 400, "set [zero_after] of the Inference Endpoint instead"),
            ({"rate_limit": {"per_hour": None}}, 400, "Unknown field [per_hour] in [rate_limit]."),
            ({"name": "e6"}, 400, "cannot be changed"),
            ({"rate_limit": {"burst": 0}}, 400, "[burst] must be a positive"),
            ({"rate_limit": {"per_hour": 1}}, 400, "Unknown field [per_hour] in [rate_limit]."),
            ({"rate_limit": 5}, 400, "[rate_limit] must be an object, not a number."),
            ({"enabled": "no"}, 400, "[enabled] must be a boolean"),
            ({"connection": "nowhere"}, 400, "No connection is named [nowhere]"),
            ({"fallback": "nowhere"}, 400, "The fallback [nowhere] of endpoint"),
            ({"proxy": "http://user:pass@127.0.0.1:3128"}, 400, "[proxy] contains a password"),
            ({"proxy": "socks5://127.0.0.1:1080"}, 400, "[proxy] is not a valid URL"),
            ({"proxy": "http://[::1"}, 400, "[proxy] is not a valid URL"),
            ({"bill_to": "org\r\nX-Evil: 1"}, 400, "[bill_to] is not a valid"),
            ({"bill_to": "組織"}, 400, "[bill_to] is not a valid"),
            ({"save_anyway": True}, 400, "Unknown field [save_anyway]"),
            ([], 400, "must be an object, not an array."),
        ],
    )
    async def test_invalid_endpoint_changes_are_a_400_and_change_nothing(
        self, scripted: ScriptedGateway, changes: object, status: int, expected: str
    ) -> None:
        before = await sent(scripted, "GET", "/api/endpoints/e5")
        reply = await scripted.request("PATCH", "/api/endpoints/e5", changes)
        assert (reply.status, expected in reply.json()["error"]["message"]) == (status, True)
        assert await sent(scripted, "GET", "/api/endpoints/e5") == before

    async def test_every_form_field_is_returned(self, scripted: ScriptedGateway) -> None:
        await sent(scripted, "POST", "/api/connections", {"name": "team", "token": TOKEN})
        form = {
            "name": "hosted",
            "source": "router",
            "model": "intfloat/multilingual-e5-large",
            "provider": "hf-inference",
            "bill_to": "team",
            "connection": "team",
            "timeout": 9.0,
            "fallback": "e5",
            "enabled": False,
        }
        shown = await sent(scripted, "POST", "/api/endpoints", form)
        assert {name: shown[name] for name in form} == form
        guessed = await sent(
            scripted, "POST", "/api/endpoints", {"name": "by", "provider": "auto", "model": "a/b"}
        )
        assert guessed["source"] == "router"
        refused = await scripted.request(
            "POST", "/api/endpoints", {"name": "x", "source": "router", "model": "a/b", "url": "http://x"}
        )
        assert "A hosted endpoint cannot have a URL" in refused.json()["error"]["message"]

    def test_form_of_an_endpoint_round_trips(self) -> None:
        whole = Endpoint(
            name="e5",
            task=Task.RERANK,
            source=Source.DEDICATED,
            model="org/model",
            hub_model="org/original",
            url="http://127.0.0.1:1/",
            urls=("http://127.0.0.1:1/", "http://127.0.0.1:3/"),
            engine=Engine.TEI,
            similarity=Similarity.L2_NORM,
            dimensions=8,
            min_dimensions=4,
            max_input_tokens=9,
            provider="auto",
            bill_to="team",
            namespace="team",
            connection="team",
            proxy="http://127.0.0.1:2",
            ca_bundle="ca.pem",
            timeout=1.5,
            fallback="e6",
            enabled=False,
            requests_per_minute=1,
            tokens_per_minute=2,
            max_concurrent_requests=3,
            burst=4,
            max_batch_texts=9,
            prefixes={InputType.SEARCH: "q: "},
            prompt_names={InputType.SEARCH: "query"},
            cached=False,
            top_n=5,
            return_documents=True,
            instruction="Find the product",
            precision=Precision.BF16,
            chunking=ChunkingSettings(strategy="none"),
        )
        plain = Endpoint(name="x", task=Task.TEXT_EMBEDDING, source=Source.FAKE)
        names = [one.name for one in fields(Endpoint) if one.name != "facts"]
        same = [name for name in names if getattr(whole, name) == getattr(plain, name)]
        assert same == [], "this test sets every field"
        assert EndpointForm.of(whole).endpoint() == (whole, None)

    async def test_disabled_endpoint_is_a_424_on_every_face(self, scripted: ScriptedGateway) -> None:
        shown = await sent(scripted, "PATCH", "/api/endpoints/e5", {"enabled": False})
        assert shown["enabled"] is False
        assert scripted.script.calls == []
        for path, body in (
            ("/v1/embeddings", {"model": "e5", "input": "a"}),
            ("/hf/e5/embed", {"inputs": "a"}),
            ("/_inference/e5", {"input": "a"}),
        ):
            reply = await scripted.request("POST", path, body)
            assert reply.status == 424
            assert "is disabled" in reply.body.decode()
        await sent(scripted, "PATCH", "/api/endpoints/e5", {"enabled": True})
        assert (await embed(scripted, "an-admin-key-for-tests")).status == 200

    async def test_endpoint_that_fails_its_test_is_saved_disabled_on_request(
        self, scripted: ScriptedGateway
    ) -> None:
        scripted.script.answer = fail
        form = {"name": "own", "url": "http://127.0.0.1:1/", "token": TOKEN}
        assert (await scripted.request("POST", "/api/endpoints", form)).status == 502
        shown = await sent(scripted, "POST", "/api/endpoints", {**form, "save_anyway": True})
        assert (shown["enabled"], shown["tested"], shown["token"]) == (False, False, "…last")
        assert shown["failure"] == {
            "cause": "connection_lost",
            "message": "Nothing listens.",
            "remedy": "Start it.",
        }
        on = await scripted.request("PATCH", "/api/endpoints/own", {"enabled": True})
        assert error_of(on) == (502, "connection_lost")
        scripted.script.answer = type(scripted.script)().answer
        assert (await sent(scripted, "PATCH", "/api/endpoints/own", {"enabled": True}))["tested"] is True

    async def test_clone_copies_every_setting_under_a_new_name(self, scripted: ScriptedGateway) -> None:
        first = await sent(scripted, "GET", "/api/endpoints/e5")
        twin = await sent(scripted, "POST", "/api/endpoints/e5/clone", {"name": "twin"})
        assert twin == {**first, "name": "twin"}
        assert scripted.script.calls == []
        assert error_of(await scripted.request("POST", "/api/endpoints/e5/clone", {"name": "twin"})) == (
            409,
            "endpoint_exists",
        )

    async def test_endpoint_in_use_requires_force_except_on_elasticsearch(
        self, scripted: ScriptedGateway
    ) -> None:
        for name in ("two", "three"):
            await sent(scripted, "POST", "/api/endpoints/e5/clone", {"name": name})
        await sent(scripted, "PATCH", "/api/endpoints/two", {"fallback": "e5"})
        await sent(scripted, "POST", "/api/keys", {"name": "one", "endpoints": ["e5", "three"]})
        await sent(scripted, "POST", "/api/keys", {"name": "other", "default_endpoint": "e5"})
        refused = await scripted.request("DELETE", "/api/endpoints/e5")
        assert error_of(refused) == (409, "in_use")
        assert "used by key one, key other, endpoint two" in refused.json()["error"]["message"]
        assert error_of(await scripted.request("DELETE", "/api/endpoints/e5?force=maybe"))[0] == 400
        await sent(scripted, "DELETE", "/api/endpoints/e5?force=true")
        assert (await scripted.request("DELETE", "/_inference/three")).status == 200


class TestConnections:
    async def test_connection_token_is_stored_masked_replaced_and_deleted(
        self, scripted: ScriptedGateway
    ) -> None:
        made = await sent(
            scripted, "POST", "/api/connections", {"name": "team", "token": f"{TOKEN}\n{TOKEN}2"}
        )
        assert made["tokens"] == ["…last", "…ast2"]
        form = {"name": "own", "url": "http://127.0.0.1:1/", "connection": "team"}
        shown = await sent(scripted, "POST", "/api/endpoints", form)
        assert (shown["connection"], "token" in shown) == ("team", False)
        listed = await scripted.request("GET", "/api/connections")
        assert TOKEN not in listed.body.decode()
        assert listed.json() == {"connections": [{**made, "endpoints": ["own"]}]}
        replaced = await sent(scripted, "PATCH", "/api/connections/team", {"token": "hf_" + "x" * 20})
        assert replaced["tokens"] == ["…xxxx"]
        refused = await scripted.request("DELETE", "/api/connections/team")
        assert error_of(refused) == (409, "in_use")
        await sent(scripted, "DELETE", "/api/endpoints/own")
        await sent(scripted, "DELETE", "/api/connections/team")
        assert error_of(await scripted.request("PATCH", "/api/connections/team", {"token": TOKEN}))[0] == 404
        for form in ({"name": "team"}, {"name": "team", "token": ""}, {"name": "A", "token": TOKEN}):
            assert (await scripted.request("POST", "/api/connections", form)).status == 400


class TestKeys:
    async def test_key_sees_and_calls_only_endpoints_in_its_scope(self, scripted: ScriptedGateway) -> None:
        await sent(scripted, "POST", "/api/endpoints/e5/clone", {"name": "twin"})
        made = await sent(scripted, "POST", "/api/keys", {"name": "app", "endpoints": ["twin"]})
        key = made["key"]
        assert made["endpoints"] == ["twin"]
        models = await sent(scripted, "GET", "/v1/models", key=key)
        assert [model["id"] for model in models["data"]] == ["twin"]
        listed = await sent(scripted, "GET", "/_inference/_all", key=key)
        assert [one["inference_id"] for one in listed["endpoints"]] == ["twin"]
        assert (await embed(scripted, key, "twin")).status == 200
        hidden = await scripted.request("POST", "/v1/embeddings", {"model": "e5", "input": "a"}, key=key)
        assert (hidden.status, hidden.json()["error"]["code"]) == (404, "endpoint_not_found")
        assert (await scripted.request("GET", "/metrics", key=key)).status == 403
        await sent(scripted, "PATCH", "/api/keys/app", {"endpoints": None})
        assert (await embed(scripted, key)).status == 200
        assert (await scripted.request("GET", "/metrics", key=key)).status == 200

    @pytest.mark.parametrize("hidden", ["chat", "twin-2"])
    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "/v1/embeddings", {"model": "NAME", "input": "a"}),
            ("POST", "/v1/embeddings", {"model": "NAME:query", "input": "a"}),
            ("POST", "/v1/embeddings", {"model": "NAME:nonsense", "input": "a"}),
            ("POST", "/v1/chat/completions", {"model": "NAME", "messages": []}),
            ("POST", "/v1/rerank", {"model": "NAME", "query": "a", "documents": ["b"]}),
            ("GET", "/v1/models/NAME", None),
            ("POST", "/hf/NAME", {"inputs": "a"}),
            ("POST", "/hf/NAME/embed", {"inputs": "a"}),
            ("POST", "/hf/NAME/v1/chat/completions", {"messages": []}),
            ("POST", "/hf/NAME/tokenize", {"inputs": "a"}),
            ("GET", "/hf/NAME", None),
            ("GET", "/hf/NAME/info", None),
            ("GET", "/hf/NAME/health", None),
            ("GET", "/hf/NAME/v1/models", None),
            ("POST", "/_inference/NAME", {"input": "a"}),
            ("POST", "/_inference/NAME?nonsense=1", {"input": "a"}),
            ("POST", "/_inference/NAME/_stream", {"input": "a"}),
            ("POST", "/_inference/chat_completion/NAME", {"messages": []}),
            ("GET", "/_inference/NAME", None),
            ("GET", "/_inference/completion/NAME", None),
            ("PUT", "/_inference/NAME", {}),
            ("DELETE", "/_inference/NAME", None),
        ],
    )
    async def test_endpoint_outside_the_key_scope_responds_like_a_missing_one(
        self, scripted: ScriptedGateway, hidden: str, method: str, path: str, body: dict[str, Any] | None
    ) -> None:
        await sent(scripted, "POST", "/api/endpoints/e5/clone", {"name": "twin-1"})
        await sent(scripted, "POST", "/api/endpoints/e5/clone", {"name": "twin-2"})
        await sent(
            scripted, "POST", "/api/endpoints", {"name": "chat", "source": "fake", "task": "chat_completion"}
        )
        key = (await sent(scripted, "POST", "/api/keys", {"name": "app", "endpoints": ["twin-1"]}))["key"]

        async def answer() -> tuple[int, dict[str, str], bytes]:
            text = json.dumps(body).replace("NAME", hidden).encode() if body is not None else b""
            reply = await scripted.request(
                method, path.replace("NAME", hidden), text, key=key, more_headers={"x-request-id": "same"}
            )
            return reply.status, reply.headers, reply.body

        there = await answer()
        await sent(scripted, "DELETE", f"/api/endpoints/{hidden}?force=true")
        assert await answer() == there
        assert 400 <= there[0] < 500

    async def test_only_an_admin_sees_where_a_model_runs(self, scripted: ScriptedGateway) -> None:
        form = {"name": "far", "url": "http://10.1.2.3:8080", "model": "org/far", "save_anyway": True}
        await sent(scripted, "POST", "/api/endpoints", form)
        folder = {"name": "here", "source": "local", "model": "/srv/models/here", "save_anyway": True}
        await sent(scripted, "POST", "/api/endpoints", folder)
        key = (await sent(scripted, "POST", "/api/keys", {"name": "app"}))["key"]
        shown = await sent(scripted, "GET", "/_inference/far")
        assert shown["endpoints"][0]["service_settings"]["url"] == "http://10.1.2.3:8080"
        assert {"engine", "engine_version", "warnings"} <= (await sent(scripted, "GET", "/hf/far/info"))[
            "hubgate"
        ].keys()
        for path in ("/_inference", "/_inference/_all", "/v1/models", "/hf/far/info", "/hf/here/info"):
            body = (await scripted.request("GET", path, key=key)).body.decode()
            assert "far" in body or "here" in body
            for fact in ("10.1.2.3", "/srv/models", "engine", "warnings"):
                assert fact not in body, path

    async def test_key_over_its_request_limit_gets_429_with_retry_after(
        self, scripted: ScriptedGateway
    ) -> None:
        made = await sent(scripted, "POST", "/api/keys", {"name": "app", "requests_per_minute": 2})
        for _ in range(2):
            assert (await embed(scripted, made["key"])).status == 200
        assert (await scripted.request("GET", "/v1/models", key=made["key"])).status == 200, "asks no model"
        for path, body in (
            ("/v1/embeddings", {"model": "e5", "input": "a"}),
            ("/_inference/e5", {"input": "a"}),
        ):
            full = await scripted.request("POST", path, body, key=made["key"])
            assert full.status == 429
            assert 0 < int(full.headers["retry-after"]) <= 60
        await sent(scripted, "PATCH", f"/api/keys/{made['id']}", {"requests_per_minute": 3})
        assert (await embed(scripted, made["key"])).status == 200

    async def test_key_over_its_token_limit_gets_429(self, scripted: ScriptedGateway) -> None:
        made = await sent(scripted, "POST", "/api/keys", {"name": "app", "tokens_per_minute": 3})
        assert (await embed(scripted, made["key"])).status == 200
        refused = await embed(scripted, made["key"])
        assert (refused.status, refused.json()["error"]["code"]) == (429, "key_limit")

    async def test_expiry_of_a_key_must_be_in_the_future(self, scripted: ScriptedGateway) -> None:
        made = await sent(scripted, "POST", "/api/keys", {"name": "app", "expires_at": time.time() + 3600})
        assert (await embed(scripted, made["key"])).status == 200
        past = await scripted.request("PATCH", "/api/keys/app", {"expires_at": 5})
        assert "in the past" in past.json()["error"]["message"]

    async def test_invalid_key_changes_are_rejected(self, scripted: ScriptedGateway) -> None:
        await sent(scripted, "POST", "/api/keys", {"name": "team/app", "endpoints": ["e5"]})
        for changes, status in (
            ({"admin": True}, 400),
            ({"colour": "red"}, 400),
            ({"colour": None}, 400),
            ({"bulk": "yes"}, 400),
            ({"name": None}, 400),
            ({"endpoints": ["nowhere"]}, 404),
            ({"default_endpoint": "nowhere"}, 404),
            ([], 400),
        ):
            assert (await scripted.request("PATCH", "/api/keys/team/app", changes)).status == status
        await sent(scripted, "DELETE", "/api/endpoints/e5?force=true")
        renamed = await sent(scripted, "PATCH", "/api/keys/team/app", {"name": "app"})
        assert (renamed["name"], renamed["endpoints"]) == ("app", ["e5"]), "what is gone stays named"
        assert error_of(await scripted.request("PATCH", "/api/keys/team/app", {}))[0] == 404


class TestUsage:
    async def test_usage_is_grouped_by_endpoint_and_key_in_json_and_csv(
        self, scripted: ScriptedGateway
    ) -> None:
        made = await sent(scripted, "POST", "/api/keys", {"name": "=app", "requests_per_minute": 2})
        for _ in range(3):
            await embed(scripted, made["key"])
        usage = await sent(scripted, "GET", "/api/usage?by=endpoint,key")
        by_key = {(row["endpoint"], row["key_name"]): row for row in usage["rows"]}
        row = by_key["e5", "=app"]
        assert (row["requests"], row["texts"], row["prompt_tokens"], row["errors"]) == (2, 2, 6, 0)
        assert 0 < row["p50"] <= row["p99"] <= row["slowest"]
        assert row["bulk_p95"] is None
        assert by_key["", "=app"]["errors"] == 1
        causes = await sent(scripted, "GET", "/api/usage?by=cause&key==app")
        assert causes["rows"] == [{"cause": "key_limit", "requests": 1}]
        for how in ({"path": "&format=csv"}, {"path": "", "accept": "text/csv"}):
            reply = await scripted.request(
                "GET", f"/api/usage?by=day,key{how['path']}&endpoint=e5", accept=how.get("accept")
            )
            assert reply.headers["content-type"].startswith("text/csv")
            (line,) = csv.DictReader(io.StringIO(reply.body.decode()))
            assert (line["key_name"], line["requests"]) == ("'=app", "2")
            assert line["day"] == time.strftime("%Y-%m-%d", time.gmtime())

    async def test_csv_has_all_rows_and_json_is_limited(self, scripted: ScriptedGateway) -> None:
        hour = int(time.time()) // HOUR * HOUR
        counts = {Slot(hour, "e5", f"k{number}"): Tally(requests=1) for number in range(MAX_ROWS + 1)}
        await SqlUsage(scripted.service._store.database).add(counts)
        reply = await scripted.request("GET", "/api/usage?by=key")
        assert error_of(reply) == (400, "invalid_request")
        reply = await scripted.request("GET", "/api/usage?by=key&format=csv")
        keys = [line["key"] for line in csv.DictReader(io.StringIO(reply.body.decode()))]
        assert sorted(keys) == sorted(f"k{number}" for number in range(MAX_ROWS + 1))

    async def test_requests_without_a_model_call_are_not_usage(self, scripted: ScriptedGateway) -> None:
        for path in ("/v1/models", "/hf/e5/info", "/api/about"):
            await sent(scripted, "GET", path) if path != "/hf/e5/info" else None
        assert (await sent(scripted, "GET", "/api/usage"))["rows"] == []

    @pytest.mark.parametrize(
        "query", ["from=yesterday", "from=9&to=5", "by=moon", "format=xml", "from=2026-13-01"]
    )
    async def test_invalid_query_is_a_400(self, scripted: ScriptedGateway, query: str) -> None:
        assert error_of(await scripted.request("GET", f"/api/usage?{query}")) == (400, "invalid_request")

    async def test_times_are_parsed_as_dates_timestamps_and_seconds(self, scripted: ScriptedGateway) -> None:
        for query in ("from=2026-01-02&to=2026-01-03T00:30Z", "from=1767312000&to=1767400200"):
            answer = await sent(scripted, "GET", f"/api/usage?{query}&by=hour")
            assert (answer["from"], answer["to"]) == ("2026-01-02T00:00:00Z", "2026-01-03T00:30:00Z")
            assert (answer["by"], answer["rows"]) == (["hour"], [])
        ends = "from=0001-01-01T00:00%2B05:00&to=9999-12-31T23:59-05:00"
        answer = await sent(scripted, "GET", f"/api/usage?{ends}")
        assert (answer["from"], answer["to"]) == ("1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z")


class TestAudit:
    async def test_every_change_is_audited_with_actor_action_and_changes(
        self, scripted: ScriptedGateway
    ) -> None:
        boss = await sent(scripted, "POST", "/api/keys", {"name": "boss", "admin": True})
        how = {"key": boss["key"]}
        form = {"name": "own", "url": "http://127.0.0.1:1/", "token": TOKEN}
        await sent(scripted, "POST", "/api/endpoints", form, **how)
        await sent(scripted, "PATCH", "/api/endpoints/own", {"rate_limit": {"burst": 3}}, **how)
        await sent(scripted, "DELETE", "/_inference/own", **how)
        await sent(scripted, "DELETE", "/api/keys/boss")
        changes = (await sent(scripted, "GET", "/api/audit"))["changes"]
        assert [(change["who"], change["verb"], change["subject"]) for change in changes[:5]] == [
            ("admin", "key.revoke", "boss"),
            (boss["id"], "endpoint.remove", "own"),
            (boss["id"], "endpoint.change", "own"),
            (boss["id"], "endpoint.add", "own"),
            ("admin", "key.create", "boss"),
        ]
        assert changes[2]["changes"] == {"burst": [1, 3]}
        assert changes[3]["changes"]["token"] == [None, "…last"]
        assert not {TOKEN, boss["key"]} & set(json.dumps(changes).split('"'))
        older = await sent(scripted, "GET", f"/api/audit?limit=1&before={changes[0]['id']}")
        assert older["changes"] == [changes[1]]

    @pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "before=-1"])
    async def test_invalid_query_is_a_400(self, scripted: ScriptedGateway, query: str) -> None:
        assert error_of(await scripted.request("GET", f"/api/audit?{query}")) == (400, "invalid_request")
