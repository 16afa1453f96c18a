"""A feature is one folder and one line; without any one of them, the gateway works."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from console_client import ConsoleClient
from gateway_process import Home

from hubgate import features
from hubgate.features.feature import Feature

if TYPE_CHECKING:
    from gateway_process import GatewayProcess
    from running_gateway import Reply, RunningGateway

ADMIN_KEY = "an-admin-key-for-tests-of-features"
CALLS = {
    "/v1/embeddings": {"model": "words", "input": ["a"]},
    "/_inference/words": {"input": ["a"]},
    "/hf/words/embed": {"inputs": "a"},
}
PROGRAM = """\
import sys
from hubgate import features
features.__path__.append({folder!r})
features.NAMES = {names!r}
from hubgate.cli import main
main(sys.argv[1:])
"""


def home_with(folder: Path, *names: str) -> Home:
    """A home whose hubgate has these features, from its own folder or from this one."""
    home = Home(folder, ADMIN_KEY)
    home.program = (sys.executable, "-c", PROGRAM.format(folder=str(Path(__file__).parent), names=names))
    return home


def ask(gateway: GatewayProcess, method: str, path: str, body: object = None) -> Reply:
    return gateway.request(method, path, body, key=ADMIN_KEY)


def test_a_new_feature_has_its_table_routes_page_metric_and_command(tmp_path: Path) -> None:
    home = home_with(tmp_path, *features.NAMES)
    with home.serve():  # its database has no table for memos
        pass
    home = home_with(tmp_path, *features.NAMES, "memos")
    with home.serve() as gateway:
        added = ask(gateway, "POST", "/api/memos", {"text": "first"})
        assert (added.status, added.json()) == (201, {"memos": 1})
        assert home.run("memo", "second").out == "Memos: 2\n"
        assert ask(gateway, "GET", "/api/memos").json() == {"memos": ["first", "second"]}
        document = ask(gateway, "GET", "/api/openapi.json").json()
        assert document["paths"]["/api/memos"]["post"]["summary"] == "Adds a memo."
        assert b"hubgate_memos_added_total 2\n" in ask(gateway, "GET", "/metrics").body
        page = page_of(gateway, "/ui/memos", language="ja")
        assert "<h1>メモ</h1>" in page
        assert "<li>first</li><li>second</li>" in page
        assert '<a href="/ui/memos" aria-current="page">メモ</a>' in page
        assert page_of(gateway, "/ui/deployments", language="ja").count("/ui/memos") == 1
    assert "memo" in home.run("--help").out
    assert home.run("memo", "third").out == "Memos: 3\n"  # in the process of the command


def page_of(gateway: GatewayProcess, path: str, language: str) -> str:
    """A page after signing in."""
    console = ConsoleClient(cast("RunningGateway", gateway))  # it needs the URL only
    console.sign_in(ADMIN_KEY)
    return console.get(path, accept_language=language).text


@pytest.mark.parametrize("left_out", features.NAMES)
def test_the_gateway_works_without_any_one_feature(tmp_path: Path, left_out: str) -> None:
    home = home_with(tmp_path, *(name for name in features.NAMES if name != left_out))
    with home.serve() as gateway:
        added = ask(gateway, "POST", "/api/endpoints", {"name": "words", "source": "fake"})
        assert added.status == 201
        for path, body in CALLS.items():
            assert ask(gateway, "POST", path, body).status == 200, path
        for path in ("/ui/models", "/ui/models/words/overview", "/ui/audit"):
            page = page_of(gateway, path, language="en")
            assert "words" in page, path
            assert "Something went wrong" not in page, path
        assert gateway.traceback == ""
    assert home.run("list").status == 0


def test_features_are_what_they_declare() -> None:
    assert all(isinstance(feature, Feature) for feature in features.load())
    assert [feature.folder.name for feature in features.load()] == list(features.NAMES)
    assert [feature.schema.part for feature in features.load() if feature.schema] == list(features.NAMES)
