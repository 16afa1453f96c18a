"""A configuration is exported without secrets and applied with a plan; applying it again changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from generation_endpoints import by_length

from hubgate.domain.endpoint import Endpoint, Source, Task
from hubgate.domain.errors import UpstreamUnreachable
from hubgate.domain.secret import Secret

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway

TOKEN, ANOTHER = "hf_" + "one" * 8, "hf_" + "two" * 8
WHOLE = """
version: 1
connections:
  team: {token: "${TEAM}"}
endpoints:
  e5:
    source: fake
  first: {url: "http://127.0.0.1:1/", connection: team, fallback: second, rate_limit: {burst: 3}}
  second: {url: "http://127.0.0.1:2/", token: "${SECOND}"}
  later: {url: "http://127.0.0.1:3/", enabled: false}
keys:
  app: {endpoints: [first], requests_per_minute: 60}
"""
SECRETS = {"TEAM": TOKEN, "SECOND": ANOTHER}


async def apply(gateway: ScriptedGateway, text: str, **form: Any) -> Any:
    reply = await gateway.request("POST", "/api/config", {"yaml": text, "secrets": SECRETS, **form})
    assert reply.status == 200, reply.body
    return reply.json()


async def export(gateway: ScriptedGateway, query: str = "") -> str:
    reply = await gateway.request("GET", f"/api/config{query}")
    assert reply.status == 200
    return reply.body.decode()


def steps_of(answer: Any) -> list[tuple[str, str, str]]:
    return [(step["action"], step["kind"], step["name"]) for step in answer["steps"]]


ALL = [
    ("add", "connection", "team"),
    ("add", "endpoint", "first"),
    ("add", "endpoint", "second"),
    ("add", "endpoint", "later"),
    ("add", "key", "app"),
]


async def test_dry_run_returns_the_plan_and_changes_nothing(scripted: ScriptedGateway) -> None:
    before = await export(scripted)
    result = await apply(scripted, WHOLE, dry_run=True)
    assert (result["applied"], result["failed"], steps_of(result)) == (False, 0, ALL)
    first = result["steps"][1]["changes"]
    assert first["burst"] == [None, 3]
    assert first["url"] == [None, "http://127.0.0.1:1/"]
    assert result["steps"][0]["changes"] == {"token": [None, "…eone"]}
    assert await export(scripted) == before
    assert scripted.script.calls == []


async def test_applying_a_configuration_twice_changes_nothing_the_second_time(
    scripted: ScriptedGateway,
) -> None:
    result = await apply(scripted, WHOLE)
    assert (result["applied"], result["failed"], steps_of(result)) == (True, 0, ALL)
    key = result["steps"][-1]["key"]
    body = {"model": "first", "input": "a"}
    assert (await scripted.request("POST", "/v1/embeddings", body, key=key)).status == 200
    gateway = scripted.service
    assert gateway.registry.find("first").fallback == "second", "which was registered only after it"
    assert gateway.registry.token("first") == Secret(TOKEN)
    assert gateway.registry.token("second") == Secret(ANOTHER)
    assert (gateway.registry.find("later").enabled, gateway.registry.find("later").facts.engine) == (
        False,
        None,
    )
    calls = len(scripted.script.calls)
    for secrets in (SECRETS, {}):
        assert steps_of(await apply(scripted, WHOLE, secrets=secrets)) == []
    assert len(scripted.script.calls) == calls


async def test_applying_an_unedited_export_changes_nothing(scripted: ScriptedGateway) -> None:
    await apply(scripted, WHOLE)
    text = await export(scripted)
    assert TOKEN not in text
    assert ANOTHER not in text
    written = yaml.safe_load(text)
    assert written["connections"] == {"team": {"token": "${TOKEN_OF_CONNECTION_TEAM}"}}
    assert written["endpoints"]["second"] == {
        "source": "dedicated",
        "url": "http://127.0.0.1:2/",
        "token": "${TOKEN_OF_SECOND}",
    }
    assert written["keys"] == {"app": {"endpoints": ["first"], "requests_per_minute": 60}}
    assert steps_of(await apply(scripted, text, secrets={}, prune=True)) == []
    one = yaml.safe_load(await export(scripted, "?endpoint=first"))
    assert set(one["endpoints"]) == {"first"}
    assert set(one) == {"version", "endpoints"}
    asked = await scripted.request("GET", "/api/config?format=json")
    assert asked.json() == {"yaml": text}
    assert (await scripted.request("GET", "/api/config?format=xml")).status == 400
    assert (await scripted.request("GET", "/api/config?endpoint=nowhere")).status == 404


async def test_export_omits_values_that_equal_the_default(scripted: ScriptedGateway) -> None:
    for limits, shown in (({"requests_per_minute": 3000}, None), ({"burst": 2}, {"burst": 2})):
        form = {"rate_limit": {"requests_per_minute": 3000, **limits}}
        assert (await scripted.request("PATCH", "/api/endpoints/e5", form)).status == 200
        assert yaml.safe_load(await export(scripted))["endpoints"]["e5"].get("rate_limit") == shown


async def test_token_variables_of_similar_names_are_distinct(scripted: ScriptedGateway) -> None:
    for name in ("a-b", "a.b"):
        draft = Endpoint(name=name, task=Task.TEXT_EMBEDDING, source=Source.FAKE)
        await scripted.service.registry.register(draft, Secret(TOKEN))
    written = yaml.safe_load(await export(scripted))["endpoints"]
    assert [written[name]["token"] for name in ("a-b", "a.b")] == ["${TOKEN_OF_A_B}", "${TOKEN_OF_A_B_2}"]


async def test_apply_changes_only_the_fields_that_differ(scripted: ScriptedGateway) -> None:
    await apply(scripted, WHOLE)
    changed = (
        WHOLE.replace("burst: 3", "burst: 4")
        .replace("requests_per_minute: 60", "bulk: true")
        .replace('token: "${SECOND}"', "connection: team")
    )
    result = await apply(scripted, changed, secrets={"TEAM": ANOTHER})
    assert [(*step, result["steps"][n]["changes"]) for n, step in enumerate(steps_of(result))] == [
        ("change", "connection", "team", {"token": ["…eone", "…otwo"]}),
        ("change", "endpoint", "first", {"burst": [3, 4]}),
        ("change", "endpoint", "second", {"connection": [None, "team"], "token": ["…otwo", None]}),
        ("change", "key", "app", {"bulk": [False, True], "requests_per_minute": [60, None]}),
    ]
    assert scripted.service.registry.token("second") == Secret(ANOTHER)
    assert steps_of(await apply(scripted, changed, secrets={})) == []


async def test_prune_removes_absent_entries_but_never_the_key_in_use(
    scripted: ScriptedGateway,
) -> None:
    await apply(scripted, WHOLE)
    boss, plain = await scripted.access.create("boss", admin=True)
    less = "endpoints: {e5: {source: fake}}\nconnections: {}\nkeys: {}\n"
    assert steps_of(await apply(scripted, less)) == []
    body = {"yaml": less, "prune": True}
    result = (await scripted.request("POST", "/api/config", body, key=plain)).json()
    assert steps_of(result) == [
        ("remove", "key", "app"),
        ("remove", "endpoint", "first"),
        ("remove", "endpoint", "later"),
        ("remove", "endpoint", "second"),
        ("remove", "connection", "team"),
    ]
    assert result["failed"] == 0
    assert [endpoint.name for endpoint in scripted.service.registry.endpoints()] == ["e5"]
    assert scripted.access.find("boss") is not None
    assert steps_of(await apply(scripted, "version: 1", prune=True)) == [], "parts that are absent stay"
    assert boss.admin


async def test_failed_endpoint_is_reported_and_the_others_are_applied(
    scripted: ScriptedGateway,
) -> None:
    def fail(_: object) -> Any:
        raise UpstreamUnreachable("Nothing listens.", remedy="Start it.")

    scripted.script.answer = fail
    result = await apply(scripted, WHOLE)
    failures = {step["name"]: step["failure"]["cause"] for step in result["steps"] if "failure" in step}
    assert failures == {"first": "connection_lost", "second": "connection_lost"}
    assert result["failed"] == 2
    assert {"later"} <= {endpoint.name for endpoint in scripted.service.registry.endpoints()}
    scripted.script.answer = type(scripted.script)().answer
    assert steps_of(await apply(scripted, WHOLE)) == [
        ("add", "endpoint", "first"),
        ("add", "endpoint", "second"),
    ]


async def test_fallback_of_another_task_is_reported_as_a_failure(scripted: ScriptedGateway) -> None:
    text = "endpoints: {a: {source: fake, fallback: b}, b: {source: fake, task: rerank}}"
    scripted.script.answer = by_length
    result = await apply(scripted, text)
    assert "cannot be the fallback" in result["steps"][0]["failure"]["message"]
    assert result["failed"] == 1
    assert scripted.service.registry.find("a").fallback is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "colour: red",
            "Unknown field [colour]. Valid fields: [version, connections, endpoints, aliases, keys].",
        ),
        ("version: 2", "[version] must be one of [1], not 2."),
        ("- a", "The configuration must be an object, not an array."),
        ("endpoints: {x: {sauce: fake}}", "endpoints.x: Unknown field [sauce]. Did you mean [source]?"),
        (
            "endpoints: {x: {ends_at: 2026-12-24}}",
            "endpoints.x: Unknown field [ends_at]: hubgate no longer pauses",
        ),
        ("endpoints: {X: {source: fake}}", "endpoints.X: Invalid inference_id"),
        ("endpoints: {x: {source: fake, connection: nowhere}}", "refers to missing connection [nowhere]"),
        ("endpoints: {x: {source: fake, fallback: nowhere}}", "refers to missing fallback [nowhere]"),
        ("endpoints: {x: {source: fake, name: y}, y: {}}", "requires a model"),
        ("endpoints: {x: {source: fake, timeout: .nan}}", "[timeout] must be a positive number"),
        ("endpoints: {x: {source: fake, timeout: .inf}}", "[timeout] must be a positive number"),
        ("endpoints: {x: {source: fake, token: hf_plain}}", "a configuration cannot contain a token"),
        ("endpoints: {x: {source: fake, token: '${NOT}'}}", "no value is given for its token ${NOT}"),
        ("connections: {team: {token: '${NOT}'}}", "no value is given for its token ${NOT}"),
        ("connections: {Team: {token: '${TEAM}'}}", "connections.Team: Invalid inference_id"),
        ("keys: {app: {endpoints: [nowhere]}}", "key app refers to missing endpoint [nowhere]"),
        ("keys: {app: {endpoints: e5}}", "keys.app: [endpoints] must be an array, not a string."),
        ("keys: {app: {admin: true, endpoints: [e5]}}", "An admin key can access every endpoint"),
        ("keys: {hg_x: {}}", "looks like a key"),
        ("keys: {boss: {}}", "[admin] cannot be changed"),
        ("keys: {x: {requests_per_minute: -1}}", "keys.x: [requests_per_minute] must be a whole number"),
        (
            "keys: {boss: {admin: true, requests_per_minute: -1}}",
            "keys.boss: [requests_per_minute] must be a",
        ),
        ("keys: {x: {expires_at: 2027-01-01}}", "keys.x: [expires_at] must be a number, not a string."),
        ("keys: {x: {name: y}}", "keys.x: [name] differs from"),
        ("endpoints: {x: {source: fake, name: y}}", "endpoints.x: [name] differs from"),
        ("a: &a [x]\nb: *a", "aliases are not supported"),
        ("keys:\n  app: {}\n  app: {}", "on line 2: duplicate key app"),
        ("keys: {", "Invalid YAML on line"),
        ("keys: {app: !!python/object:os.system {}}", "Invalid YAML on line"),
        ("\x00", "Invalid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("version: 1" + ":1" * 50_000, "a value exceeds 10000"),
        ("version: 1" + ":1" * 1000 + ".5", "a value that YAML does not allow"),
    ],
)
async def test_invalid_configuration_is_rejected_before_any_change(
    scripted: ScriptedGateway, text: str, expected: str
) -> None:
    await scripted.access.create("boss", admin=True)
    before = await export(scripted)
    good = "" if text.startswith(("-", "[", "\x00")) else "connections: {good: {token: '${TEAM}'}}\n"
    if "connections" in text:
        good = ""
    reply = await scripted.request("POST", "/api/config", {"yaml": good + text, "secrets": SECRETS})
    assert reply.status == 400
    assert expected in reply.json()["error"]["message"].replace("on line 3", "on line 2")
    assert "hf_plain" not in reply.body.decode()
    assert await export(scripted) == before


async def test_all_problems_are_reported_together(scripted: ScriptedGateway) -> None:
    text = "endpoints: {X: {source: fake}, y: {sauce: 1}}\nkeys: {z: {bulk: 1}}"
    message = (await scripted.request("POST", "/api/config", {"yaml": text})).json()["error"]["message"]
    assert all(f"{part}: " in message for part in ("endpoints.X", "endpoints.y", "keys.z"))


async def test_problems_of_all_keys_are_reported_together(scripted: ScriptedGateway) -> None:
    text = "keys: {x: {requests_per_minute: -1}, y: {tokens_per_minute: -1}, z: {endpoints: [nowhere]}}"
    message = (await scripted.request("POST", "/api/config", {"yaml": text})).json()["error"]["message"]
    assert all(
        expected in message
        for expected in ("keys.x: [req", "keys.y: [tok", "key z refers to missing endpoint [nowhere]")
    )


async def test_key_can_outlive_the_endpoints_in_its_scope(scripted: ScriptedGateway) -> None:
    """The export of such a gateway can still be applied."""
    await scripted.access.create("app", endpoints=("gone",))
    assert (await apply(scripted, await export(scripted), prune=True))["steps"] == []


async def test_expired_key_is_not_created(scripted: ScriptedGateway) -> None:
    """The export of a gateway with an expired key can be applied to another gateway."""
    assert (await apply(scripted, "keys: {app: {expires_at: 1}}"))["steps"] == []


async def test_many_entries_are_validated_in_linear_time(scripted: ScriptedGateway) -> None:
    """Comparing each name with every other would take minutes."""
    text = "keys:\n" + "".join(f"  k{number}: {{bulk: 1}}\n" for number in range(30_000))
    reply = await scripted.request("POST", "/api/config", {"yaml": text})
    assert reply.status == 400


async def test_configuration_size_is_limited(scripted: ScriptedGateway) -> None:
    for size, status in ((1_000_000, 200), (1_000_001, 400)):
        reply = await scripted.request("POST", "/api/config", {"yaml": " " * size, "dry_run": True})
        assert reply.status == status
