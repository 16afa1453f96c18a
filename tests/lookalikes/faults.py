"""The faults of servers, by name."""

from __future__ import annotations

import gzip
import math
from typing import TYPE_CHECKING

from lookalikes.model import Answer, Embedder

if TYPE_CHECKING:
    from collections.abc import Callable

    from lookalikes.model import ReceivedRequest


class _Fewer(Embedder):
    def vectors(self, texts: list[str]) -> list[list[float]]:
        return super().vectors(texts)[:-1]


class _More(Embedder):
    def vectors(self, texts: list[str]) -> list[list[float]]:
        return super().vectors([*texts, "one too many"])


class _NaN(Embedder):
    def vectors(self, texts: list[str]) -> list[list[float]]:
        vectors = super().vectors(texts)
        vectors[0][0] = math.nan
        return vectors


class _OtherDimensions(Embedder):
    def vectors(self, texts: list[str]) -> list[list[float]]:
        return [[*vector, 0.5] for vector in super().vectors(texts)]


class _OddText(Embedder):
    def vectors(self, texts: list[str]) -> list[list[float]]:
        pairs = zip(texts, super().vectors(texts), strict=True)
        return [vector[: len(vector) // 2] if "odd" in text else vector for text, vector in pairs]


class _ZeroText(Embedder):
    def vectors(self, texts: list[str]) -> list[list[float]]:
        pairs = zip(texts, super().vectors(texts), strict=True)
        return [[0.0] * len(vector) if "zero" in text else vector for text, vector in pairs]


EMBEDDERS: dict[str, type[Embedder]] = {
    "fewer": _Fewer,
    "more": _More,
    "nan": _NaN,
    "other-dimensions": _OtherDimensions,
    "odd-text": _OddText,
    "zero-text": _ZeroText,
}
"""A valid reply with wrong vectors, or with one for each text that contains this word."""

HUGE = 2 << 20
"""Bytes of a reply that exceeds the lowest limit that can be set."""
_PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"


def _echo(request: ReceivedRequest) -> Answer:
    header = request.headers.get("authorization", "")
    return Answer(
        400, {"error": f"Bad header {header}; again {header.removeprefix('Bearer ')} " + "x" * 200_000}
    )


ANSWERS: dict[str, Callable[[ReceivedRequest], Answer]] = {
    "paused": lambda _: Answer(400, {"error": "Bad Request: Invalid state"}),
    "waking-503": lambda _: Answer(503, "503 Service Unavailable"),
    "waking-502": lambda _: Answer(
        502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", {"Content-Type": "text/html"}
    ),
    "loading": lambda _: Answer(503, {"error": "Model x is currently loading", "estimated_time": 20.0}),
    "wrong-token": lambda _: Answer(401, {"error": "Invalid username or password."}),
    "no-right": lambda _: Answer(403, {"error": "This token has no permission"}),
    "no-scope": lambda _: Answer(
        403,
        {
            "error": "This authentication method does not have sufficient permissions to call Inference Providers on "
            "behalf of user ada"
        },
    ),
    "no-credit": lambda _: Answer(
        402,
        {
            "error": "You have exceeded your monthly included credits for Inference Providers. Subscribe to PRO to get "
            "20x more monthly included credits."
        },
    ),
    "gone": lambda _: Answer(
        410,
        "https://api-inference.huggingface.co is no longer supported. Please use https://router.huggingface.co instead.",
    ),
    "gated": lambda _: Answer(
        403, {"error": "Access to model meta/llama is restricted and you are not in the authorized list."}
    ),
    "too-many": lambda _: Answer(
        429, {"error": "Model is overloaded", "error_type": "Overloaded"}, {"Retry-After": "7"}
    ),
    "backend": lambda _: Answer(424, {"error": "Inference failed", "error_type": "Backend"}),
    "exclusive": lambda _: Answer(
        400, {"error": "`return_text` is mutually exclusive with `return_full_text`"}
    ),
    "failing": lambda _: Answer(500, {"error": {"message": "EngineCore encountered an issue.", "code": 500}}),
    "html": lambda _: Answer(200, _PAGE, {"Content-Type": "text/html; charset=utf-8"}),
    "not-json": lambda _: Answer(200, b"[[1.0, 2.0", {"Content-Type": "application/json"}),
    "huge": lambda _: Answer(200, b" " * HUGE),
    "bomb": lambda _: Answer(200, gzip.compress(bytes(HUGE)), {"Content-Encoding": "gzip"}),
    "not-utf8": lambda _: Answer(
        200, b'{"choices":[{"index":0,"message":{"content":"\xff"},"text":"\xff"}]}'
    ),
    "redirect": lambda _: Answer(
        307, b"", {"Location": "http://user:secret@elsewhere.example:81/embed?key=secret"}
    ),
    "echo": _echo,
}
"""Another reply."""

BEHAVIOURS = frozenset({"hang", "close", "half", "not-http"})
"""No reply: none until `release`, the connection closes before or during it, or it is not HTTP."""

STREAM_FAULTS = {
    "pause": b"",
    "stall": b"",
    "cut": b"",
    "unfinished": b"",
    "error-event": b'data: {"error":"Request failed during generation: out of cache blocks","error_type":"generation"}\n\n',
    "error-object": b'data: {"error":{"message":"EngineCore encountered an issue.","type":"InternalServerError","code":500}}\n\n',
    "not-utf8-event": b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n',
    "garbage": b"data: <html>Bad Gateway</html>\n\n",
}
"""After the second event of a stream: a pause until `release`, or nothing more and its end then, the connection closes,
the stream ends early, or this event is the last one."""

FAULTS = frozenset(EMBEDDERS) | frozenset(ANSWERS) | BEHAVIOURS | frozenset(STREAM_FAULTS)
