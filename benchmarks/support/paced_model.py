"""A model server whose pace is known, with OpenAI's routes. The first part of a path chooses the pace.

    python benchmarks/support/paced_model.py PORT

Further parts of a path stand for servers of their own.

| path | a request for embeddings takes |
|---|---|
| `/fixed-100` | 100 ms, however many there are; any number of milliseconds will do |
| `/serial` | 2 ms and 0.5 ms for each text, one request after the other, like a small server without a GPU |
| `/loaded` | 50 ms, and as much again for every 500 texts that are in it, like a GPU that runs all texts together |
| `/full-20` | 100 ms, and is refused with 429 if there are 20; any number will do |

A chat streams an event a second for 10 seconds, or as many as the path says (`/chat-600`); its first token takes 200 ms. `GET /counts` tells requests, texts and refusals of each pace,
and the most requests at once; `POST /forget` begins to count anew.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import cache
from typing import cast

import orjson
import uvloop
from httptools import HttpRequestParser

DIMENSIONS = 8
_FLOATS = [0.25] * DIMENSIONS
_FIRST_TOKEN, _EVENTS = 0.2, 10
_BASE64 = base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *_FLOATS)).decode()
_PIECE = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "paced"}


@dataclass(slots=True)
class Counts:
    """Of one pace."""

    requests: int = 0
    texts: int = 0
    refused: int = 0
    at_once: int = 0
    most_at_once: int = 0
    texts_at_once: int = 0
    free_at: float = 0.0


_counts: dict[str, Counts] = defaultdict(Counts)


class Exchange(asyncio.Protocol):
    """One connection: requests come one after the other."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Get ready for a request."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser = HttpRequestParser(self)
        self._streaming: asyncio.Task[None] | None = None
        self._url, self._body = b"", b""

    def connection_lost(self, _: Exception | None) -> None:
        """A stream ends with its client."""
        if self._streaming:
            self._streaming.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse it."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        self._url += url

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer, now or after the time of this pace."""
        pace, _, path = self._url.decode().lstrip("/").partition("/")
        body, self._url, self._body = self._body, b"", b""
        if path.endswith("v1/embeddings"):
            self._embed(pace, orjson.loads(body))
        elif path.endswith("v1/chat/completions"):
            self._chat(pace, orjson.loads(body))
        elif path.endswith("v1/models"):
            self._send(
                b"200 OK", orjson.dumps({"object": "list", "data": [{"id": "paced", "object": "model"}]})
            )
        elif pace == "counts":
            self._send(b"200 OK", orjson.dumps({name: asdict(one) for name, one in _counts.items()}))
        elif pace == "forget":
            for one in _counts.values():
                one.requests = one.texts = one.refused = one.most_at_once = 0
            self._send(b"200 OK", b"{}")
        else:
            self._send(b"404 Not Found", b"{}")

    def _embed(self, pace: str, form: dict[str, object]) -> None:
        asked = form["input"]
        texts = len(asked) if isinstance(asked, list) else 1
        counts, loop = _counts[pace], asyncio.get_running_loop()
        kind, _, number = pace.partition("-")
        if kind == "full" and counts.at_once >= int(number):
            counts.refused += 1
            self._send(b"429 Too Many Requests", b'{"error": {"message": "too many requests at once"}}')
            return
        counts.requests += 1
        counts.texts += texts
        counts.at_once += 1
        counts.texts_at_once += texts
        counts.most_at_once = max(counts.most_at_once, counts.at_once)
        seconds = 0.1
        if kind == "fixed":
            seconds = int(number) / 1000
        elif kind == "loaded":
            seconds = 0.05 * (1 + counts.texts_at_once / 500)
        elif kind == "serial":
            counts.free_at = max(counts.free_at, loop.time()) + 0.002 + 0.0005 * texts
            seconds = counts.free_at - loop.time()

        def answer() -> None:
            counts.at_once -= 1
            counts.texts_at_once -= texts
            self._send(b"200 OK", _vectors(texts, form.get("encoding_format") == "base64"))

        loop.call_later(seconds, answer)

    def _chat(self, pace: str, form: dict[str, object]) -> None:
        if not form.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            self._send(b"200 OK", orjson.dumps({**_PIECE, "choices": [choice], "usage": usage}))
            return
        self._streaming = asyncio.get_running_loop().create_task(self._stream(pace))

    async def _stream(self, pace: str) -> None:
        counts, events = _counts[pace], int(pace.partition("-")[2] or _EVENTS)
        counts.requests += 1
        counts.at_once += 1
        counts.most_at_once = max(counts.most_at_once, counts.at_once)
        try:
            await asyncio.sleep(_FIRST_TOKEN)
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
            )
            for _ in range(events):
                piece = {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
                self._transport.write(b"data: " + orjson.dumps({**_PIECE, "choices": [piece]}) + b"\n\n")
                await asyncio.sleep(1)
            self._transport.write(b"data: [DONE]\n\n")
            self._transport.close()
        finally:
            counts.at_once -= 1

    def _send(self, status: bytes, body: bytes) -> None:
        if not self._transport.is_closing():
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self._transport.write(head % (status, len(body)) + body)


@cache
def _vectors(texts: int, is_base64: bool) -> bytes:
    vector = _BASE64 if is_base64 else _FLOATS
    data = [{"object": "embedding", "index": number, "embedding": vector} for number in range(texts)]
    usage = {"prompt_tokens": texts, "total_tokens": texts}
    return orjson.dumps({"object": "list", "data": data, "model": "paced", "usage": usage})


async def main(port: int) -> None:
    """Serve until told to stop."""
    server = await asyncio.get_running_loop().create_server(Exchange, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
