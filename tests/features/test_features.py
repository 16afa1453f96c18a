"""A feature is one folder and one line; without any one of them, the gateway works."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from gateway_process import Home

from hubgate import features
from hubgate.features.feature import Feature

ADMIN_KEY = "an-admin-key-for-tests-of-features"
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


def call(url: str, method: str, body: object = None, **headers: str) -> tuple[int, str]:
    sent = {"authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json", **headers}
    payload = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, payload, sent, method=method)) as reply:
        return reply.status, reply.read().decode()


def test_a_new_feature_has_its_table_routes_page_metric_and_command(tmp_path: Path) -> None:
    home = home_with(tmp_path, *features.NAMES)
    with home.serve():  # its database has no table for memos
        pass
    home = home_with(tmp_path, *features.NAMES, "memos")
    with home.serve() as gateway:
        assert call(f"{gateway.url}/api/memos", "POST", {"text": "first"}) == (201, '{"memos":1}')
        assert home.run("memo", "second").out == "Memos: 2\n"
        assert json.loads(call(f"{gateway.url}/api/memos", "GET")[1]) == {"memos": ["first", "second"]}
        document: Any = json.loads(call(f"{gateway.url}/api/openapi.json", "GET")[1])
        assert document["paths"]["/api/memos"]["post"]["summary"] == "Adds a memo."
        assert "hubgate_memos_added_total 2\n" in call(f"{gateway.url}/metrics", "GET")[1]
        page = page_of(gateway.url, "/ui/memos", language="ja")
        assert "<h1>メモ</h1>" in page
        assert "<li>first</li><li>second</li>" in page
        assert '<a href="/ui/memos" aria-current="page">メモ</a>' in page
        assert page_of(gateway.url, "/ui/deployments", language="ja").count("/ui/memos") == 1
    assert "memo" in home.run("--help").out
    assert home.run("memo", "third").out == "Memos: 3\n"  # in the process of the command


def page_of(url: str, path: str, language: str) -> str:
    """A page after signing in."""
    form = {"content-type": "application/x-www-form-urlencoded", "origin": url}
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    signed_in = urllib.request.Request(f"{url}/ui/sign-in", f"key={ADMIN_KEY}".encode(), form, method="POST")
    opener.open(signed_in).close()
    with opener.open(urllib.request.Request(url + path, headers={"accept-language": language})) as reply:
        return str(reply.read().decode())


@pytest.mark.parametrize("left_out", features.NAMES)
def test_the_gateway_works_without_any_one_feature(tmp_path: Path, left_out: str) -> None:
    home = home_with(tmp_path, *(name for name in features.NAMES if name != left_out))
    with home.serve() as gateway:
        form = {"name": "words", "source": "fake"}
        assert call(f"{gateway.url}/api/endpoints", "POST", form)[0] == 201
        text = {"model": "words", "input": ["a"]}
        assert call(f"{gateway.url}/v1/embeddings", "POST", text)[0] == 200
        assert call(f"{gateway.url}/_inference/words", "POST", {"input": ["a"]})[0] == 200
        assert call(f"{gateway.url}/hf/words/embed", "POST", {"inputs": "a"})[0] == 200
        assert "words" in page_of(gateway.url, "/ui/models", language="en")
        assert gateway.traceback == ""
    assert home.run("list").status == 0


def test_features_are_what_they_declare() -> None:
    assert all(isinstance(feature, Feature) for feature in features.load())
    assert [feature.folder.name for feature in features.load()] == list(features.NAMES)
    assert [feature.schema.part for feature in features.load() if feature.schema] == list(features.NAMES)
