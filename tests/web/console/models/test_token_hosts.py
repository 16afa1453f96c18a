"""A stored token is sent only to the hosts that it was entered for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from console_client import ConsoleClient
from lookalikes import lookalike
from running_gateway import RunningGateway

from hubgate.web.console.models.form import EMPTY, KEEP, NEW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from commands import Command
    from lookalikes import LookAlike
    from running_gateway import Reply

    from hubgate.settings import Settings

OWN, SHARED = "hf_OWNtokenOfTheVictim", "hf_SHAREDtokenOfTheTeam"


@pytest.fixture
def server() -> Iterator[LookAlike]:
    """Where the tokens were given for."""
    with lookalike("tei", key=OWN) as running:
        yield running


@pytest.fixture
def shared() -> Iterator[LookAlike]:
    with lookalike("tei", key=SHARED) as running:
        yield running


@pytest.fixture
def thief() -> Iterator[LookAlike]:
    """A server that is glad of any token."""
    with lookalike("tei") as running:
        yield running
        seen = [asked.headers.get("authorization", "") for asked in running.requests]
        stolen = [header for header in seen if OWN in header or SHARED in header]
        assert not stolen


@pytest.fixture
def victim(gateway: RunningGateway, server: LookAlike, shared: LookAlike) -> RunningGateway:
    """A gateway with a token of an endpoint's own, and one of a connection."""
    gateway.add("own", url=server.url, token=OWN)
    connection = {"name": "team", "token": SHARED, "hosts": [shared.url]}
    assert gateway.request("POST", "/api/connections", connection).status == 201
    gateway.add("shared", url=shared.url, connection="team")
    return gateway


def refused(reply: Reply) -> str:
    """What is said of a token that may not go there, and what to do."""
    assert reply.status == 400, reply.body
    error = reply.json()["error"]
    assert error["cause"] == "token_needed"
    assert "again" in error["remedy"]
    message: str = error["message"]
    return message


def audited(gateway: RunningGateway, verb: str) -> list[tuple[str, dict[str, Any]]]:
    """Subjects and changes of the audit log's lines, the oldest first."""
    lines = gateway.request("GET", "/api/audit").json()["changes"]
    return [(line["subject"], line["changes"]) for line in reversed(lines) if line["verb"] == verb]


def attempts(thief: str, where: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Requests that would send a stored token to the thief, or through it."""
    through: dict[str, Any] = {"proxy": thief}
    url: dict[str, Any] = {"url": thief}
    for change in (url, through, {"url": thief, "namespace": "thief"}):
        yield "PATCH", "/api/endpoints/own", change
        yield "PATCH", "/api/endpoints/shared", change
    yield "PATCH", "/api/endpoints/own", {"url": thief, "enabled": False}
    yield "PATCH", "/api/endpoints/own", {"source": "router", "url": None, "model": "a/b", **through}
    taken: dict[str, Any] = {"name": "taken", "connection": "team"}
    for form in ({"url": thief}, {"url": where, **through}, {"url": thief, "enabled": False}):
        yield "POST", "/api/endpoints", {**taken, **form}
        yield "POST", "/api/diagnose", {**taken, **form}
    yield "POST", "/api/endpoints", {**taken, "url": thief, "save_anyway": True}


def test_no_request_sends_a_stored_token_to_another_host(
    victim: RunningGateway, server: LookAlike, shared: LookAlike, thief: LookAlike
) -> None:
    tried = list(attempts(thief.url, shared.url))
    for method, path, body in tried:
        assert thief.url in refused(victim.request(method, path, body)), body
    assert len(audited(victim, "token.refuse")) == len(tried)
    assert audited(victim, "token.refuse")[0] == (
        "own",
        {"hosts": [None, [thief.url]], "connection": [None, None]},
    )
    assert not thief.requests
    assert [one["url"] for one in victim.request("GET", "/api/endpoints").json()["endpoints"]] == [
        server.url,
        shared.url,
    ]


def test_endpoint_moves_when_its_token_is_given_and_the_old_host_gets_no_request(
    victim: RunningGateway, server: LookAlike
) -> None:
    with lookalike("tei", key="hf_another") as other:
        moved = victim.request("PATCH", "/api/endpoints/own", {"url": other.url, "token": "hf_another"})
        assert (moved.status, moved.json()["url"]) == (200, other.url)
        refused(victim.request("PATCH", "/api/endpoints/own", {"url": server.url}))
        # Nobody's token is sent where none is stored, and a path at the same host is the same host.
        longer = victim.request("PATCH", "/api/endpoints/own", {"url": f"{other.url}/v1/embeddings"})
        assert longer.status == 200, longer.body
        gone = victim.request("PATCH", "/api/endpoints/own", {"token": None, "enabled": False})
        assert gone.status == 200
        away = victim.request("PATCH", "/api/endpoints/own", {"url": "http://127.0.0.1:1"})
        assert away.status == 200


def test_clone_keeps_the_host_restriction_of_its_token(victim: RunningGateway, thief: LookAlike) -> None:
    assert victim.request("POST", "/api/endpoints/own/clone", {"name": "twin"}).status == 201
    refused(victim.request("PATCH", "/api/endpoints/twin", {"url": thief.url}))


def test_every_diagnosis_is_in_the_audit_log(
    victim: RunningGateway, server: LookAlike, shared: LookAlike
) -> None:
    assert victim.request("POST", "/api/endpoints/own/diagnose").json()["well"]
    assert victim.request(
        "POST", "/api/diagnose", {"name": "x", "url": shared.url, "connection": "team"}
    ).json()["well"]
    assert not victim.request("POST", "/api/diagnose", {"name": "y", "url": "ftp://z"}).json()["well"]
    assert audited(victim, "endpoint.diagnose") == [
        ("own", {"hosts": [None, [server.url]], "connection": [None, None]}),
        ("x", {"hosts": [None, [shared.url]], "connection": [None, "team"]}),
        ("y", {"hosts": [None, []], "connection": [None, None]}),
    ]


class TestHostsOfAConnection:
    def test_adding_hosts_requires_the_token_and_removing_them_does_not(
        self, victim: RunningGateway, shared: LookAlike, thief: LookAlike
    ) -> None:
        here = "/api/connections/team"
        widened = {"hosts": [shared.url, thief.url]}
        assert thief.url in refused(victim.request("PATCH", here, widened))
        assert "huggingface" in refused(victim.request("PATCH", here, {"hosts": ["huggingface", shared.url]}))
        assert audited(victim, "token.refuse")[0] == ("team", {"hosts": [None, [thief.url]]})
        again = victim.request("PATCH", here, {**widened, "token": SHARED})
        assert (again.status, again.json()["hosts"]) == (200, [shared.url, thief.url])
        narrowed = victim.request("PATCH", here, {"hosts": [shared.url]})
        assert narrowed.json()["hosts"] == [shared.url]
        left = victim.request("PATCH", here, {"hosts": ["https://gpu.example.com"], "token": SHARED})
        assert (left.status, left.json()["error"]["cause"]) == (409, "in_use")
        assert "shared" in left.json()["error"]["message"]
        victim.request("DELETE", "/api/endpoints/shared")
        part = victim.request("PATCH", here, {"hosts": ["https://*.example.com"], "token": SHARED})
        assert part.status == 200
        assert victim.request("PATCH", here, {"hosts": ["https://gpu.example.com"]}).status == 200

    def test_default_host_is_hugging_face(self, gateway: RunningGateway, thief: LookAlike) -> None:
        made = gateway.request("POST", "/api/connections", {"name": "team", "token": SHARED})
        assert made.json()["hosts"] == ["huggingface"]
        refused(
            gateway.request("POST", "/api/endpoints", {"name": "x", "url": thief.url, "connection": "team"})
        )
        named = {"name": "x", "url": "https://x1.us-east-1.aws.endpoints.huggingface.cloud"}
        gateway.add(**named, connection="team", enabled=False, save_anyway=True)

    def test_connections_token_is_sent_to_the_hub_only_if_allowed(self, victim: RunningGateway) -> None:
        reply = victim.request("GET", "/api/hub/whoami?connection=team")
        assert (reply.status, "requires a token" in reply.json()["error"]["message"]) == (400, True)

    @pytest.mark.parametrize(
        "hosts",
        [
            [],
            ["*"],
            ["https://*"],
            ["https://*.com"],
            ["ftp://x"],
            ["https://u:p@x"],
            ["x:99999"],
            ["bücher"],
        ],
    )
    def test_invalid_host_is_rejected(self, gateway: RunningGateway, hosts: list[str]) -> None:
        reply = gateway.request("POST", "/api/connections", {"name": "team", "token": SHARED, "hosts": hosts})
        assert (reply.status, "[hosts]" in reply.json()["error"]["message"]) == (400, True)

    def test_command_line_stores_lists_and_removes_hosts(
        self, gateway: RunningGateway, hubgate: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MY_TOKEN", SHARED)
        given = ("--host", "GPU.example.com", "--host", "http://10.0.0.5:8080/v1", "--token-env", "MY_TOKEN")
        assert hubgate("connection", "add", "team", *given).status == 0
        hosts = ["https://gpu.example.com", "http://10.0.0.5:8080"]
        assert hubgate("connection", "list").rows[0][2:4] == [f"{hosts[0]},", hosts[1]]
        narrowed = hubgate("connection", "replace", "team", "--host", hosts[0])
        assert narrowed.out == "Replaced the hosts of team.\n"
        widened = hubgate("connection", "replace", "team", "--host", hosts[1])
        assert "Send the token again" in widened.err


def test_configuration_contains_the_hosts_and_cannot_move_a_token(
    victim: RunningGateway, shared: LookAlike, thief: LookAlike
) -> None:
    exported = victim.request("GET", "/api/config?format=json").json()["yaml"]
    assert f"hosts:\n    - {shared.url}" in exported
    unchanged = victim.request("POST", "/api/config", {"yaml": exported}).json()
    assert unchanged["steps"] == []
    without = f"connections: {{team: {{token: '${{T}}'}}}}\nendpoints: {{shared: {{url: '{shared.url}', connection: team}}}}"
    assert victim.request("POST", "/api/config", {"yaml": without}).json()["steps"] == []
    moved = victim.request("POST", "/api/config", {"yaml": exported.replace(shared.url, thief.url)}).json()
    assert {step["name"]: step["failure"]["cause"] for step in moved["steps"]} == {
        "team": "token_needed",
        "shared": "token_needed",
    }
    secrets = {"TOKEN_OF_CONNECTION_TEAM": "hf_another_token"}
    two = {"yaml": exported.replace("team", "two"), "secrets": secrets, "dry_run": True}
    first = victim.request("POST", "/api/config", two).json()["steps"][0]
    assert (first["action"], first["changes"]["hosts"]) == ("add", [None, [shared.url]])


def test_elasticsearch_api_cannot_move_a_token(victim: RunningGateway, thief: LookAlike) -> None:
    update = {"service_settings": {"url": thief.url}}
    reply = victim.request("PUT", "/_inference/text_embedding/own/_update", update)
    assert reply.status == 400
    assert not thief.requests


def test_console_forms_cannot_move_a_token(
    victim: RunningGateway, server: LookAlike, shared: LookAlike, thief: LookAlike
) -> None:
    console = ConsoleClient(victim)
    console.sign_in()
    form = {**EMPTY, "url": thief.url, "name": "own", "connection": KEEP}
    for path in ("/ui/models/own/test", "/ui/models/own/edit"):
        assert "The token is not allowed for this host" in console.post(path, form).words
    for path in ("/ui/models/test", "/ui/models/new"):
        sent = {**form, "name": "taken", "connection": "team"}
        assert "The token is not allowed for this host" in console.post(path, sent).words
    page = console.get("/ui/connections/team").text
    assert f">\n{shared.url}</textarea>" in page
    wider = console.post("/ui/connections/team", {"hosts": f"{shared.url}\n{thief.url}", "token": ""})
    assert "The token is not allowed for this host" in wider.words
    again = console.post("/ui/connections/team", {"hosts": f"{shared.url}\nhuggingface", "token": SHARED})
    assert again.status == 303
    named = {**form, "url": server.url, "name": "two", "connection": NEW, "token": OWN, "token_name": "given"}
    assert console.post("/ui/models/new", named).status == 303
    assert victim.service.connections.find("given").hosts == (server.url,)


def test_undecryptable_token_is_dropped_when_its_endpoint_moves(
    settings: Settings, server: LookAlike, thief: LookAlike
) -> None:
    with RunningGateway(settings) as gateway:
        gateway.add("own", url=server.url, token=OWN)
        key = gateway.admin_key
    kept = settings.secret_key_file.read_bytes()
    settings.secret_key_file.unlink()
    with RunningGateway(settings) as gateway:
        gateway.admin_key = key
        assert gateway.request("PATCH", "/api/endpoints/own", {"url": thief.url}).status == 200
    settings.secret_key_file.write_bytes(kept)
    with RunningGateway(settings) as gateway:
        gateway.admin_key = key
        assert gateway.request("POST", "/api/endpoints/own/check").status == 200
        assert "token" not in gateway.request("GET", "/api/endpoints/own").json()
