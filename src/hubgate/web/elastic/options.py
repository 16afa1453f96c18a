"""Query parameters, media types and JSON bodies, read as strictly as Elasticsearch reads them."""

from __future__ import annotations

import re
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.responses import Response

from hubgate.domain.endpoint import GENERATION_TASKS, Task
from hubgate.domain.errors import InvalidRequest
from hubgate.web.elastic.errors import (
    ElasticError,
    illegal_argument_exception,
    parse_exception,
    status_exception,
)
from hubgate.web.http.asgi import JSON, Scope, decode

T = TypeVar("T")
SERVICE = "hugging_face"
SERVED_TASKS = (
    Task.TEXT_EMBEDDING,
    Task.SPARSE_EMBEDDING,
    Task.RERANK,
    Task.COMPLETION,
    Task.CHAT_COMPLETION,
)
"""Elasticsearch's task types. Endpoints of other tasks have no place in this API."""
DEFAULT_TIMEOUT = "30s"
GENERATION_TIMEOUT = "120s"
# Every Elasticsearch client may send these. Only `pretty` has an effect: no response has a value that `human` changes,
# no stack trace is ever shown, and `filter_path` would only make a response smaller.
_COMMON = frozenset({"pretty", "human", "error_trace", "filter_path"})
_BODY_TYPES = frozenset({b"application/json", b"application/vnd.elasticsearch+json"})
_ACCEPTED_VERSION = re.compile(rb"application/vnd\.elasticsearch\+json;\s*compatible-with=([89])\b")
_TIME = re.compile(r"(\d{1,9})(nanos|micros|ms|s|m|h|d)")
_SECONDS = {"nanos": 1e-9, "micros": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# "embedding" is Elasticsearch's multimodal task, which its service hugging_face does not have.
_TASKS = frozenset({*SERVED_TASKS, "embedding"})


class Timeout(NamedTuple):
    text: str
    """As the client wrote it."""
    seconds: float


class RequestOptions:
    """A request's query parameters and media types.

    Raises:
        ElasticError: a parameter is unknown, `pretty` is neither true nor false, or the body's type is not JSON.
    """

    __slots__ = ("_params", "media_type", "pretty")

    def __init__(self, scope: Scope, *known: str) -> None:
        self._params = _params(scope, known) if scope["query_string"] else {}
        # Read now: a refusal must come before any effect.
        self.pretty = bool(self._params) and self.flag("pretty")
        self.media_type = _media_type(scope)

    def flag(self, name: str) -> bool:
        """A boolean parameter; its bare name means true."""
        value = self._params.get(name, "false")
        if value not in {"", "true", "false"}:
            raise illegal_argument_exception(
                f"Failed to parse value [{value[:200]}] as only [true] or [false] are allowed."
            )
        return value != "false"

    def timeout(self, in_body: str | None = None, *, task: str | None = None) -> Timeout:
        """How long the caller waits; the query string takes precedence over the body."""
        default = GENERATION_TIMEOUT if task in GENERATION_TASKS else DEFAULT_TIMEOUT
        text = self._params.get("timeout") or in_body or default
        return _DEFAULTS.get(text) or _parse_timeout(text)

    def format_json(self, body: bytes) -> bytes:
        return msgspec.json.format(body, indent=2) + b"\n" if self.pretty else body

    def response(self, value: object) -> Response:
        body = self.format_json(msgspec.json.encode(value))
        return Response(body, headers={"content-type": self.media_type.decode()})


def _parse_timeout(text: str) -> Timeout:
    parts = _TIME.fullmatch(text)
    if parts is None:
        raise illegal_argument_exception(
            f"failed to parse setting [timeout] with value [{text[:200]}] as a time value: unit is missing or "
            "unrecognized. Write a whole number and its unit, for example 500ms, 30s or 2m."
        )
    seconds = int(parts[1]) * _SECONDS[parts[2]]
    if not seconds:
        raise illegal_argument_exception(f"Invalid value [{text}]. [timeout] must be greater than zero")
    return Timeout(text, seconds)


_DEFAULTS = {text: _parse_timeout(text) for text in (DEFAULT_TIMEOUT, GENERATION_TIMEOUT)}


def parse_task(word: str | None) -> str | None:
    """A task type by Elasticsearch's or Hugging Face's name; `None` for any.

    Raises:
        ElasticError: there is no such task type.
    """
    if word is None or word == "any":
        return None
    if word in _TASKS:
        return word
    try:
        return Task(word)
    except ValueError:
        raise status_exception(f"Unknown task_type [{word[:200]}]") from None


def parse_body(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a body.

    Raises:
        ElasticError: the body is missing, is not valid JSON, or does not match the decoder's type.
    """
    if not body:
        raise ElasticError("parse_exception", "request body is required")
    try:
        return decode(body, decoder)
    except InvalidRequest as error:
        # Clients look for Elasticsearch's own words, which are in lower case.
        raise parse_exception(error.message.replace("Unknown field [", "unknown field [", 1)[:500]) from None


def _params(scope: Scope, known: tuple[str, ...]) -> dict[str, str]:
    params = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    unknown = params.keys() - _COMMON - set(known)
    if unknown:
        names = ", ".join(f"[{name[:200]}]" for name in sorted(unknown))
        raise illegal_argument_exception(
            f"request [{scope['path']}] contains unrecognized parameter{'s' * (len(unknown) > 1)}: {names}"
        )
    return params


def _media_type(scope: Scope) -> bytes:
    """The response's type: the release that `Accept` names, else plain JSON."""
    media_type = JSON
    for name, value in scope["headers"]:
        if name == b"accept":
            if version := _ACCEPTED_VERSION.search(value):
                media_type = b"application/vnd.elasticsearch+json;compatible-with=" + version[1]
        elif name == b"content-type" and value.partition(b";")[0].strip().lower() not in _BODY_TYPES:
            raise ElasticError(
                "media_type_header_exception",
                f"Content-Type header [{value[:200].decode('latin-1')}] is not supported. Send application/json.",
                status=406,
            )
    return media_type
