"""`hubgate edit`, `enable`, `disable`, `clone`, `connection …`, `key edit`, `usage` and `audit`, through a running gateway."""

from __future__ import annotations

import csv
import re
import time
from typing import TYPE_CHECKING

from lookalikes import lookalike
from running_gateway import RunningGateway

if TYPE_CHECKING:
    import pytest
    from commands import Command

    from hubgate.settings import Settings

TOKEN = "hf_" + "t0ken" * 6


def test_edit_changes_given_options_and_unset_restores_defaults(
    gateway: RunningGateway, hubgate: Command
) -> None:
    gateway.add("words", prefixes={"search": "ask: "})
    edited = hubgate(
        *("edit", "words", "--requests-per-minute", "9", "--similarity", "l2_norm", "--timeout", "2.5"),
        *("--chunking", '{"strategy": "none"}', "--no-cache", "--unset", "prefixes"),
    )
    assert (edited.status, edited.err) == (0, "")
    shown = gateway.request("GET", "/api/endpoints/words").json()
    assert shown["rate_limit"] == {"requests_per_minute": 9, "burst": 1}
    assert (shown["similarity"], shown["timeout"], shown["cache"]) == ("l2_norm", 2.5, False)
    assert (shown["prefixes"], shown["chunking_settings"]) == ({}, {"strategy": "none"})
    assert hubgate("edit", "words", "--cache", "--unset", "rate-limit").status == 0
    shown = gateway.request("GET", "/api/endpoints/words").json()
    assert shown["cache"] is True
    assert "rate_limit" not in shown  # the default is no limit for a model that hubgate runs itself
    assert hubgate("edit", "words").err.startswith("hubgate: No settings given")


def test_endpoint_is_disabled_listed_as_off_and_enabled(gateway: RunningGateway, hubgate: Command) -> None:
    gateway.add("words")
    assert hubgate("disable", "words").out == "words is disabled.\n"
    assert hubgate("list").rows[0][1] == "off"
    assert gateway.request("POST", "/hf/words/embed", {"inputs": "a"}).status == 424
    assert hubgate("enable", "words").out == "words is enabled.\n"
    assert gateway.request("POST", "/hf/words/embed", {"inputs": "a"}).status == 200


def test_clone_registers_an_endpoint_and_removing_one_in_use_requires_force(
    gateway: RunningGateway, hubgate: Command
) -> None:
    gateway.add("words")
    assert hubgate("clone", "words", "twin").out.startswith("Added twin: text_embedding, ")
    gateway.create_key("app", endpoints=["words"])
    refused = hubgate("remove", "words")
    assert (refused.status, "used by key app" in refused.err) == (1, True)
    assert hubgate("remove", "words", "--force").out == "Removed words.\n"


def test_endpoint_that_fails_its_test_is_saved_on_request(gateway: RunningGateway, hubgate: Command) -> None:
    kept = hubgate("add", "later", "--url", "http://127.0.0.1:9", "--save-anyway")
    assert kept.status == 0, kept.err
    assert "disabled." in kept.out.splitlines()[0]
    assert kept.out.splitlines()[1].startswith("Its test failed (connection_refused): ")
    assert hubgate("enable", "later").status == 1
    both = hubgate("add", "far", "--hosted", "org/model", "--model", "other")
    assert "--hosted already names the model" in both.err


def test_connection_is_stored_used_replaced_and_removed(
    gateway: RunningGateway, hubgate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    with lookalike("tei", key=TOKEN) as server:
        given = ("--token-env", "MY_TOKEN", "--host", server.url)
        assert hubgate("connection", "add", "team", *given).out == "Stored team.\n"
        assert hubgate("add", "e5", "--url", server.url, "--connection", "team").status == 0
    listed = hubgate("connection", "list")
    assert TOKEN not in listed.out
    assert listed.rows[0][:2] == ["team", "…0ken"]
    assert listed.rows[0][-1] == "e5"
    replaced = hubgate("connection", "replace", "team", "--token-env", "MY_TOKEN")
    assert replaced.out == "Replaced the token of team, used by e5.\n"
    assert "is used by endpoint e5" in hubgate("connection", "remove", "team").err
    hubgate("remove", "e5")
    assert hubgate("connection", "remove", "team").out == "Removed team.\n"
    for without in (("add", "team"), ("replace", "team")):
        assert "No token given" in hubgate("connection", *without).err


def test_placeholder_token_is_accepted_with_a_warning(
    gateway: RunningGateway, hubgate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, token in enumerate(("hf_YOUR_TOKEN", "hf_…", "/root", "<token>", TOKEN)):
        monkeypatch.setenv("MY_TOKEN", token.replace("…", "..."))
        stored = hubgate("connection", "add", f"team-{number}", "--token-env", "MY_TOKEN")
        assert (stored.status, "looks like a placeholder" in stored.err) == (0, token != TOKEN), stored.err
        assert token not in stored.err


def test_key_is_created_and_changed_with_all_its_rights(gateway: RunningGateway, hubgate: Command) -> None:
    gateway.add("words")
    gateway.add("other")
    made = hubgate(
        *("key", "create", "app", "--endpoint", "words", "--endpoint", "other", "--expires", "30d"),
        *("--requests-per-minute", "5", "--tokens-per-minute", "900"),
    )
    assert made.status == 0, made.err
    app = gateway.request("GET", "/api/keys").json()["keys"][-1]
    assert (app["endpoints"], app["requests_per_minute"]) == (["words", "other"], 5)
    assert abs(app["expires_at"] - time.time() - 30 * 86_400) < 600
    listed = " ".join(hubgate("key", "list").rows[-1])
    assert "words, other" in listed
    assert "5 requests, 900 tokens" in listed
    edit = ("key", "edit", "app", "--name", "app two", "--bulk", "--expires", "2099-12-31")
    assert hubgate(*edit, "--unset", "endpoints").out == "Changed app.\n"
    app = gateway.request("GET", "/api/keys").json()["keys"][-1]
    assert (app["name"], app["bulk"], app["endpoints"], app["expires_at"]) == (
        "app two",
        True,
        [],
        4102358400.0,
    )
    for arguments, told in (
        (("app two",), "No settings given"),
        (("app two", "--expires", "soon"), "Invalid --expires"),
        (("app two", "--expires", "2001-01-01"), "in the past"),
        (("nobody", "--bulk"), "No key has this id or name."),
    ):
        failed = hubgate("key", "edit", *arguments)
        assert (failed.status, told in failed.err) == (1, True)


def test_usage_is_printed_as_csv_without_a_running_gateway(settings: Settings, hubgate: Command) -> None:
    with RunningGateway(settings) as gateway:
        gateway.add("words")
        gateway.request("POST", "/hf/words/embed", {"inputs": ["é"]})
    (line,) = csv.DictReader(hubgate("usage", "--csv").out.splitlines())
    assert (line["endpoint"], line["requests"]) == ("words", "1")
    assert "Usage cannot be grouped by [moon]" in hubgate("usage", "--csv", "--by", "moon").err


def test_usage_and_audit_log_are_shown(gateway: RunningGateway, hubgate: Command) -> None:
    gateway.add("words")
    key = gateway.create_key("app")
    assert hubgate("usage", "--csv").out.startswith("endpoint,requests,errors,")
    for _ in range(2):
        gateway.request("POST", "/hf/words/embed", {"inputs": ["a", "b"]}, key=key)
    assert [row[:5] for row in hubgate("usage", "--key", "app").rows] == [["words", "2", "0", "0", "4"]]
    (line,) = csv.DictReader(hubgate("usage", "--by", "key", "--key", "app", "--csv").out.splitlines())
    assert (line["key_name"], line["requests"]) == ("app", "2")
    assert hubgate("usage", "--by", "key,cause").rows == []
    gateway.request("POST", "/hf/wrods/embed", {"inputs": ["a"]}, key=key)
    assert "(unknown)" in [row[0] for row in hubgate("usage").rows]
    assert hubgate("usage", "--from", "2001-01-01", "--to", "2001-01-02").rows == []
    assert "[from] is not a valid time" in hubgate("usage", "--from", "soon").err
    assert "[from] is not a valid time" in hubgate("usage", "--csv", "--from", "soon").err
    hubgate("edit", "words", "--burst", "3")
    assert hubgate("audit", "--limit", "1").rows[0][2:] == [
        "cli",
        "endpoint.change",
        "words",
        "burst:",
        "1",
        "→",
        "3",
    ]


def test_audit_shows_identifying_fields_of_an_addition_and_no_long_values(
    gateway: RunningGateway, hubgate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = "a-model-of-a-very-long-name" * 3
    chunking = '{"strategy": "sentence", "max_chunk_size": 250, "sentence_overlap": 1}'
    hubgate("add", "words", "--fake", "--model", model, "--dimensions", "8", "--chunking", chunking)
    hubgate("key", "create", "app", "--bulk", "--endpoint", "words", "--expires", "2099-12-31")
    monkeypatch.setenv("TEAM_TOKEN", TOKEN)
    hubgate("connection", "add", "team", "--token-env", "TEAM_TOKEN")
    hubgate("edit", "words", "--chunking", '{"strategy": "none"}', "--timeout", "9")
    hubgate("key", "revoke", "app")
    lines = [line.rstrip() for line in hubgate("audit").out.splitlines()[1:]]
    told = {tuple(line.split()[3:5]): line.split(maxsplit=5)[5:] for line in lines}
    shown = ", ".join(
        ["source: fake", "task: text_embedding", f"model: {model[:49]}…", "learned.dimensions: 8"]
    )
    assert told["endpoint.add", "words"] == [shown]
    assert told["key.revoke", "app"] == []
    assert told["key.create", "app"] == ["bulk: yes, endpoints: words, expires_at: 2099-12-31 00:00"]
    assert told["connection.add", "team"] == [f"token: …{TOKEN[-4:]}"]
    (changed,) = told["endpoint.change", "words"]
    assert re.fullmatch(
        r"chunking: strategy: sentence, .{0,40}… → strategy: none, .*, timeout: none → 9.0", changed
    )
    whole = gateway.request("GET", "/api/audit").json()["changes"]
    assert [None, model] in [change["changes"].get("model") for change in whole]
