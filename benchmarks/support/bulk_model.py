"""A model server for bulk jobs, with OpenAI's routes: every text has a vector of its own, and the server counts its texts.

    python benchmarks/support/bulk_model.py PORT [--seconds 0.05] [--at-once 8]

`GET /asked` tells how many texts that begin with `Row ` were asked, and how many of them were new: what a gateway asks
for itself does not count. `POST /forget` begins to count anew.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import struct
from hashlib import shake_128
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Sequence

DIMENSIONS = 384
_NUMBERS = [struct.pack("<f", (byte - 127.5) / 2048) for byte in range(256)]


def vector(text: str) -> bytes:
    """The vector of a text: float32, the same 32 numbers over and over, so that it costs little."""
    return b"".join(map(_NUMBERS.__getitem__, shake_128(text.encode()).digest(32))) * (DIMENSIONS // 32)


class Model:
    """Takes so long for a request, and so many requests at once."""

    def __init__(self, seconds: float, at_once: int) -> None:
        self._seconds = seconds
        self._workers = asyncio.Semaphore(at_once)
        self._asked = 0
        self._known: set[int] = set()

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_get("/asked", self._told)
        app.router.add_post("/forget", self._forget)
        return app

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "bulk", "object": "model"}]})

    async def _embeddings(self, request: web.Request) -> web.Response:
        form = orjson.loads(await request.read())
        texts: Sequence[str] = form["input"] if isinstance(form["input"], list) else [form["input"]]
        rows = [text for text in texts if text.startswith("Row ")]
        self._asked += len(rows)
        self._known.update(map(hash, rows))
        async with self._workers:
            if self._seconds:
                await asyncio.sleep(self._seconds)
        data = [
            {"object": "embedding", "index": n, "embedding": _spelled(text, form)}
            for n, text in enumerate(texts)
        ]
        tokens = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        body = orjson.dumps({"object": "list", "data": data, "model": "bulk", "usage": usage})
        return web.Response(body=body, content_type="application/json")

    async def _told(self, _: web.Request) -> web.Response:
        return web.json_response({"asked": self._asked, "new": len(self._known)})

    async def _forget(self, _: web.Request) -> web.Response:
        self._asked = 0
        self._known.clear()
        return web.Response(status=204)


def _spelled(text: str, form: dict[str, object]) -> str | list[float]:
    numbers = vector(text)
    if form.get("encoding_format") == "base64":
        return base64.b64encode(numbers).decode()
    return list(struct.unpack(f"<{DIMENSIONS}f", numbers))


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="A model server for bulk jobs.")
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=0.0, help="that a request takes")
    parser.add_argument("--at-once", type=int, default=64, help="requests")
    options = parser.parse_args()

    async def made() -> web.Application:
        return Model(options.seconds, options.at_once).app()

    web.run_app(made(), host="127.0.0.1", port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
