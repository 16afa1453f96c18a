"""Vector databases for `hubgate job load`, none of them in hubgate's process: real ones, and look-alikes that keep nothing.

The look-alikes answer the clients of Elasticsearch and Qdrant as the documentation of their APIs says.
"""
# ruff: noqa: N802 - the methods of a handler

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from servers.vector_databases import JsonHandler, qdrant_collection, serving


@contextmanager
def postgres() -> Iterator[str]:
    """A real PostgreSQL with pgvector, from a wheel."""
    from postgres.server import PostgresServer, short_folder  # noqa: PLC0415 - not installed everywhere

    server = PostgresServer(short_folder())
    server.start()
    try:
        yield server.url.replace("postgresql", "pgvector", 1)
    finally:
        server.stop()


class _Database(JsonHandler):
    kind = ""
    has_table = False

    def do_GET(self) -> None:
        if self.kind == "qdrant":
            self.answer(
                {"result": qdrant_collection({"size": 1, "distance": "Cosine"}), "status": "ok", "time": 0.0},
                200 if self.has_table else 404,
            )
        else:
            self.answer({}, 404)

    def do_HEAD(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        self.body()
        self.answer({})

    def do_PUT(self) -> None:
        lines = self.body().count(b"\n")
        if self.path.endswith("_bulk"):
            stored = {"index": {"_index": "rows", "status": 201, "result": "created"}}
            self.answer({"took": 1, "errors": False, "items": [stored] * (lines // 2)})
        elif "/points" in self.path:
            self.answer({"result": {"operation_id": 1, "status": "completed"}, "status": "ok", "time": 0.0})
        else:
            self.answer({"acknowledged": True, "result": True, "status": "ok", "time": 0.0})


@contextmanager
def lookalike(scheme: str) -> Iterator[str]:
    """A look-alike of `elasticsearch` or `qdrant` with one table, which accepts all that it is sent."""
    with serving(type("Handler", (_Database,), {"kind": scheme})) as address:
        yield f"{scheme}://{address}"
