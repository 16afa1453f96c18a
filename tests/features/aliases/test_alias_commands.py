"""`hubgate alias …`, and aliases in the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from commands import Command, CommandResult
    from running_gateway import RunningGateway


@pytest.fixture(autouse=True)
def endpoints(gateway: RunningGateway) -> None:
    for name, dimensions in (("one", 4), ("two", 4), ("wide", 8)):
        gateway.add(name, dimensions=dimensions)


def test_commands_set_list_move_and_remove_an_alias(hubgate: Command) -> None:
    assert hubgate("alias", "set", "find", "one").out == "find now points to one.\n"
    assert hubgate("key", "create", "app", "--endpoint", "find").status == 0
    assert hubgate("alias", "set", "find", "two").out == (
        "find now points to two, before to one.\nKey app can now call two as find.\n"
    )
    assert hubgate("alias", "set", "find", "two").out == "find already points to two.\n"
    refused = hubgate("alias", "set", "find", "wide")
    assert (refused.status, refused.out) == (1, "")
    assert "cannot be compared with those of [two]: its dimensions are 8, not 4" in refused.err
    moved = hubgate("alias", "set", "find", "wide", "--accept-new-vectors")
    assert moved.out.startswith("find now points to wide, before to two; their vectors cannot be compared")
    assert hubgate("alias", "list").rows[0][:4] == ["find", "wide", "text_embedding", "fake"]
    assert "is behind the alias find" in hubgate("remove", "wide").err
    assert "is used by key app" in hubgate("alias", "remove", "find").err
    assert hubgate("alias", "remove", "find", "--force").out == "Removed find.\n"
    assert hubgate("alias", "list").rows == []
    unknown = hubgate("alias", "remove", "find")
    assert unknown.err == "hubgate: No alias is named [find]. `hubgate alias list` lists them.\n"


def test_configuration_has_aliases(hubgate: Command, tmp_path: Path) -> None:
    hubgate("alias", "set", "find", "one")
    file = tmp_path / "hubgate.yaml"
    exported = hubgate("config", "export").out
    assert "aliases:\n  find:\n    endpoint: one\n" in exported

    def apply(text: str, *options: str) -> CommandResult:
        file.write_text(text, "utf-8")
        return hubgate("config", "apply", str(file), *options)

    assert apply(exported, "--prune").out == "Nothing to change.\n"
    assert apply("aliases: {find: {endpoint: two}, more: {endpoint: one}}").out == (
        "change alias find\n    endpoint: one → two\nadd alias more\n    endpoint: one\n"
    )
    refused = apply("aliases: {find: {endpoint: wide}}")
    assert (refused.status, "cannot be compared" in refused.out) == (1, True)
    assert apply("aliases: {find: {endpoint: wide}}", "--accept-new-vectors").status == 0
    assert "refers to missing endpoint [none]" in apply("aliases: {find: {endpoint: none}}").err
    assert "name of both an alias and an endpoint" in apply("aliases: {one: {endpoint: two}}").err
    named = apply("endpoints: {find: {source: fake}}")
    assert "name of both an alias and an endpoint" in named.err
    kept = apply(exported.partition("aliases:")[0].replace("wide:", "broad:"), "--prune")
    assert "alias find refers to missing endpoint [wide]" in kept.err
    assert apply("aliases: {}\nkeys: {app: {endpoints: [find]}}").status == 0
    pruned = apply("aliases: {more: {endpoint: one}}", "--prune")
    assert pruned.out == "remove alias find\n"
    assert [row[0] for row in hubgate("alias", "list").rows] == ["more"]
