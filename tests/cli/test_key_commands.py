"""`hubgate key …` and `hubgate cache …`, through a running gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Command
    from lookalikes.hub_api import HubApi
    from running_gateway import RunningGateway


def test_created_key_is_the_only_output_and_has_its_rights(gateway: RunningGateway, hubgate: Command) -> None:
    gateway.add("words")
    made = hubgate("key", "create", "dify", "--bulk", "--default-endpoint", "words", "--input-type", "query")
    assert (made.status, made.err) == (0, "")
    assert gateway.request("POST", "/embed", {"inputs": "a text"}, key=made.out.strip()).status == 200
    dify = gateway.request("GET", "/api/keys").json()["keys"][-1]
    assert (dify["name"], dify["bulk"], dify["admin"]) == ("dify", True, False)
    assert (dify["default_endpoint"], dify["input_type"]) == ("words", "search")
    boss = hubgate("key", "create", "boss", "--admin").out.strip()
    assert gateway.request("GET", "/api/keys", key=boss).status == 200


def test_no_second_home_is_created_beside_a_running_gateway(
    gateway: RunningGateway, hubgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key would be rejected by the running gateway, which the user meant."""
    monkeypatch.setenv("HUBGATE_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("HUBGATE_PORT", gateway.url.rpartition(":")[2])
    refused = hubgate("key", "create", "dify")
    assert (refused.status, refused.out) == (1, "")
    assert f"A gateway with another home is running at {gateway.url}" in refused.err
    assert "Set HUBGATE_HOME" in refused.err
    assert not (tmp_path / "other").exists()
    monkeypatch.setenv("HUBGATE_PORT", "0")
    created = hubgate("key", "create", "dify")
    assert created.status == 0
    assert f"Creating a new gateway in {tmp_path / 'other'}." in created.err


def test_home_is_created_beside_a_server_that_is_not_hubgate(
    hub_site: HubApi, hubgate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBGATE_PORT", hub_site.url.rpartition(":")[2])
    assert hubgate("key", "create", "dify").status == 0


def test_key_list_shows_no_secrets_and_names_are_not_markup(
    gateway: RunningGateway, hubgate: Command
) -> None:
    key = hubgate("key", "create", "[red]team/app[/red]", "--bulk").out.strip()
    listed = hubgate("key", "list")
    assert key not in listed.out
    assert listed.rows[-1][1:3] == ["[red]team/app[/red]", "bulk"]
    assert hubgate("key", "revoke", "[red]team/app[/red]").out == "Revoked [red]team/app[/red].\n"
    assert gateway.request("GET", "/v1/models", key=key).status == 401


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "admin"), "The name [admin] is reserved."),
        (("create", "a", "--default-endpoint", "nowhere"), "No endpoint is named [nowhere]."),
        (("revoke", "nobody"), "No key has this id or name."),
        (("revoke", ""), "The name is empty."),
    ],
)
def test_invalid_key_command_is_reported_in_one_line(
    gateway: RunningGateway, hubgate: Command, arguments: tuple[str, ...], told: str
) -> None:
    failed = hubgate("key", *arguments)
    assert (failed.status, failed.out) == (1, "")
    assert told in failed.err
    assert failed.err.count("\n") == 1


def test_unknown_input_type_is_a_usage_error(hubgate: Command) -> None:
    failed = hubgate("key", "create", "app", "--input-type", "poem")
    assert failed.status == 2
    assert "--input-type" in failed.err
    assert "'poem' is not one of query, document, classification, clustering." in failed.err


def test_secret_key_is_rotated(gateway: RunningGateway, hubgate: Command) -> None:
    assert hubgate("key", "rotate-secret").out == "Re-encrypted 0 tokens with the newest secret key.\n"


def test_cache_is_shown_and_cleared(gateway: RunningGateway, hubgate: Command) -> None:
    gateway.add("words")
    for _ in range(2):
        gateway.request("POST", "/hf/words/embed", {"inputs": ["one text", "another"]})
    stats = hubgate("cache", "stats")
    assert "2 vectors" in stats.out
    assert "32.0 MiB" in stats.out
    assert "1.0 GiB" in stats.out
    assert stats.out.splitlines()[-1].split() == ["words", "2", "2", "50%"]
    assert hubgate("cache", "clear").out == "Deleted all cached vectors.\n"
    assert "in memory  0 vectors, 0 bytes of 32.0 MiB" in hubgate("cache", "stats").out


def test_disabled_cache_is_reported(hubgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBGATE_CACHE_BYTES", "0")
    assert hubgate("key", "create", "app").status == 0
    assert hubgate("cache", "stats").out == "The vector cache is off: HUBGATE_CACHE_BYTES is 0.\n"
    assert hubgate("cache", "clear").status == 0
