"""The recipe for Elasticsearch of docs/changing-models.md, call by call, by its own client.

Elasticsearch is a look-alike made from its documentation: its hugging_face service sends texts to the real gateway.
"""
# ruff: noqa: N802 - the methods of a handler

from __future__ import annotations

import json
import re
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from elasticsearch import Elasticsearch
from servers.vector_databases import JsonHandler, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from running_gateway import RunningGateway

PAGE = (Path(__file__).parents[4] / "docs" / "changing-models.md").read_text("utf-8")
TEXTS = {f"r{number}": f"article {number} of the harbour" for number in range(40)}


class Elastic:
    """Inference endpoints, indices with one semantic_text field, and aliases, in memory."""

    def __init__(self) -> None:
        self.services: dict[str, dict[str, str]] = {}
        self.fields: dict[str, tuple[str, str]] = {}
        """Of each index: its semantic_text field, and the field's inference_id."""
        self.documents: dict[str, dict[str, tuple[str, list[float]]]] = {}
        self.aliases: dict[str, str] = {}

    def embed(self, index: str, text: str) -> list[float]:
        service = self.services[self.fields[index][1]]
        headers = {
            "Authorization": f"Bearer {service['api_key']}",
            "Content-Type": "application/json",
        }
        request = urllib.request.Request(service["url"], json.dumps({"inputs": [text]}).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            vector: list[float] = json.load(reply)[0]
        return vector

    def answer(self, method: str, path: str, body: Any) -> Any:
        first, *rest = path.strip("/").split("/")
        if first == "_inference":
            self.services[rest[-1]] = body["service_settings"]
            return {"inference_id": rest[-1], "task_type": rest[0], **body}
        if first == "_reindex":
            source, target = body["source"]["index"], body["dest"]["index"]
            for name, (text, _) in self.documents[source].items():
                self.documents[target][name] = (text, self.embed(target, text))
            return {"task": "node:1"}
        if first == "_tasks":
            return {"completed": True, "task": {}, "response": {"failures": []}}
        if first == "_aliases":
            self._move(body["actions"])
            return {"acknowledged": True}
        index = self.aliases.get(first, first)
        if rest[:1] == ["_search"]:
            return self._search(index, body["query"]["semantic"])
        if rest[:1] == ["_doc"]:
            text = body[self.fields[index][0]]
            self.documents[index][rest[1]] = (text, self.embed(index, text))
            return {"_index": index, "_id": rest[1], "result": "created"}
        ((field, mapping),) = body["mappings"]["properties"].items()
        assert (method, mapping["type"]) == ("PUT", "semantic_text")
        self.fields[index], self.documents[index] = (field, mapping["inference_id"]), {}
        return {"acknowledged": True, "shards_acknowledged": True, "index": index}

    def _move(self, actions: list[dict[str, Any]]) -> None:
        for action in actions:
            ((what, where),) = action.items()
            if what == "remove":
                assert self.aliases.pop(where["alias"]) == where["index"]
            else:
                self.aliases[where["alias"]] = where["index"]

    def _search(self, index: str, query: dict[str, str]) -> Any:
        assert query["field"] == self.fields[index][0]
        wanted = self.embed(index, query["query"])
        scores = {name: _dot(wanted, vector) for name, (_, vector) in self.documents[index].items()}
        best = sorted(scores, key=lambda name: -scores[name])[:10]
        hits = [{"_index": index, "_id": name, "_score": scores[name]} for name in best]
        return {"took": 1, "timed_out": False, "hits": {"hits": hits}}


def _dot(one: list[float], other: list[float]) -> float:
    assert len(one) == len(other), "the query was embedded by another model than the documents"
    return sum(a * b for a, b in zip(one, other, strict=True))


@contextmanager
def served(elastic: Elastic) -> Iterator[str]:
    class Handler(JsonHandler):
        def do_PUT(self) -> None:
            content = self.body()
            body = json.loads(content) if content else None
            self.answer(elastic.answer(self.command, urlsplit(self.path).path, body))

        do_GET = do_POST = do_PUT  # noqa: N815 - names of the base class

    with serving(Handler) as address:
        yield f"http://{address}"


@pytest.mark.filterwarnings("ignore:This API is in technical preview")  # of tasks.get
def test_each_search_finds_its_document_before_and_after_the_move(gateway: RunningGateway) -> None:
    for name, dimensions in (("e5", 32), ("e5-new", 48)):
        gateway.add(name, dimensions=dimensions)
    recipe = PAGE.partition("### Elasticsearch\n")[2].partition("\n### ")[0]
    today, move = re.findall(r"```python\n(.*?)```", recipe, re.DOTALL)
    elastic = Elastic()
    with served(elastic) as url, Elasticsearch(url, request_timeout=240) as client:
        names: dict[str, Any] = {"elastic": client, "key": gateway.admin_key}

        def run(block: str) -> None:
            block = block.replace("https://hubgate.example.com", gateway.url)
            exec(compile(block, "docs/changing-models.md", "exec"), names)  # noqa: S102 - of our own page

        run(today)
        for name, text in TEXTS.items():
            client.index(index="articles", id=name, document={"body": text})
        for index in ("articles-e5", "articles-e5-new"):
            assert elastic.aliases == {"articles": index}
            for name, text in TEXTS.items():
                found = client.search(index="articles", query={"semantic": {"field": "body", "query": text}})
                assert found["hits"]["hits"][0]["_id"] == name
                assert found["hits"]["hits"][0]["_index"] == index
            if index == "articles-e5":
                run(move)
    assert {len(vector) for _, vector in elastic.documents["articles-e5-new"].values()} == {48}
