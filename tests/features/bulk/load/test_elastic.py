"""`hubgate job load` into a look-alike of Elasticsearch's bulk API, through Elasticsearch's own client."""
# ruff: noqa: N802 - the methods of a handler

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from job_outputs import vector, write_output
from servers.vector_databases import JsonHandler, serving

from hubgate.core.vectors import floats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from commands import Command


class Search:
    """An index in memory. Its errors are those of Elasticsearch 9's documentation."""

    def __init__(self) -> None:
        self.mappings: dict[str, Any] = {}
        self.documents: dict[str, Any] = {}
        self.busy: dict[str, int] = {}
        """How many times a document is answered 429."""
        self.refused: set[str] = set()
        self.keys: set[str | None] = set()

    def bulk(self, lines: list[bytes]) -> dict[str, Any]:
        items = []
        for action, source in zip(lines[::2], lines[1::2], strict=True):
            meta = json.loads(action)["index"]
            items.append({"index": {**meta, **self._store(meta["_id"], json.loads(source))}})
        return {"took": 1, "errors": any("error" in item["index"] for item in items), "items": items}

    def _store(self, name: str, document: Any) -> dict[str, Any]:
        if self.busy.get(name, 0) > 0:
            self.busy[name] -= 1
            return {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "full"}}
        if name in self.refused:
            return {"status": 400, "error": {"type": "document_parsing_exception", "reason": "zero vector"}}
        self.documents[name] = document
        return {"status": 201, "result": "created"}


@contextmanager
def served(search: Search) -> Iterator[str]:
    class Handler(JsonHandler):
        def do_GET(self) -> None:
            found = search.mappings.get("articles")
            self.answer({"articles": {"mappings": found}} if found else {}, 200 if found else 404)

        def do_PUT(self) -> None:
            if self.path.endswith("_bulk"):
                self.answer(search.bulk(self.body().splitlines()))
                return
            search.mappings[self.path.strip("/")] = json.loads(self.body())["mappings"]
            self.answer({"acknowledged": True})

        def do_POST(self) -> None:
            self.body()
            self.answer({})

        def body(self) -> bytes:
            search.keys.add(self.headers["Authorization"])
            return super().body()

    with serving(Handler) as address:
        yield f"elasticsearch://{address}"


def test_busy_items_are_repeated_and_refused_ones_reported(
    hubgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search()
    search.busy = {"r3": 1, "r700": 1}
    search.refused = {"r5"}
    out = write_output(tmp_path / "out.parquet", 1500)
    monkeypatch.setenv("HUBGATE_LOAD_KEY", "a-key")
    with served(search) as url:
        command = ("job", "load", str(out), "--to", url, "--table", "articles")
        ended = hubgate(*command, "--create", "--similarity", "cosine")
    assert ended.status == 1
    assert "1 vector was refused." in ended.err
    assert len(search.documents) == 1499
    stored = search.documents["r700"]
    assert (stored["id"], stored["title"]) == ("r700", "title 700")
    assert stored["embedding"] == pytest.approx(floats(vector(700)), rel=1e-6)
    assert search.mappings["articles"]["properties"]["embedding"] == {
        "type": "dense_vector",
        "dims": 8,
        "index": True,
        "similarity": "cosine",
    }
    assert search.keys == {"ApiKey a-key"}


def test_index_with_other_dimensions_is_rejected(hubgate: Command, tmp_path: Path) -> None:
    search = Search()
    search.mappings["articles"] = {"properties": {"embedding": {"type": "dense_vector", "dims": 9}}}
    with served(search) as url:
        ended = hubgate(
            "job", "load", str(write_output(tmp_path / "o.jsonl", 2)), "--to", url, "--table", "articles"
        )
    assert "have 9 dimensions, those of the job 8" in ended.err
    assert not search.documents
