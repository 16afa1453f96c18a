"""What any request on the Elasticsearch face may say beside its path and body, and the form of the answer it wants."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec
from starlette.responses import Response

from hubgate.domain.endpoint import GENERATION_TASKS, Task
from hubgate.web.elastic.errors import ElasticError, illegal_argument_exception, status_exception
from hubgate.web.http.asgi import JSON, Scope

DEFAULT_TIMEOUT = "30s"
LONG_TIMEOUT = "120s"
"""Of the tasks that write."""
# Every Elasticsearch client may send these. The answers hold nothing for `human`, no stack trace is ever shown, and
# `filter_path` only makes an answer smaller: the three are taken and change nothing.
_COMMON = frozenset({"pretty", "human", "error_trace", "filter_path"})
_BODY_TYPES = frozenset({b"application/json", b"application/vnd.elasticsearch+json"})
_WANTS_VERSION = re.compile(rb"application/vnd\.elasticsearch\+json;\s*compatible-with=([89])\b")
_TIME = re.compile(r"(\d{1,9})(nanos|micros|ms|s|m|h|d)")
_SECONDS = {"nanos": 1e-9, "micros": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Elasticsearch's own multimodal task: known, and not one of hugging_face's.
_TASKS = frozenset({*Task, "embedding"})


class Timeout(NamedTuple):
    """A time as it was written, and in seconds."""

    text: str
    seconds: float


class RequestOptions:
    """A request's query parameters and media types.

    Raises:
        ElasticError: a parameter that this request does not know, `pretty` that is neither true nor false, or a body
            that is not JSON by its own word.
    """

    __slots__ = ("_params", "_pretty", "media_type")

    def __init__(self, scope: Scope, *known: str) -> None:
        self._params = _params(scope, known) if scope["query_string"] else {}
        self._pretty = self.flag("pretty")  # now, for what is refused later has been done already
        self.media_type = _media_type(scope)

    def flag(self, name: str) -> bool:
        """A parameter that is true or false; its bare name means true."""
        value = self._params.get(name, "false")
        if value not in {"", "true", "false"}:
            raise illegal_argument_exception(
                f"Failed to parse value [{value[:200]}] as only [true] or [false] are allowed."
            )
        return value != "false"

    def timeout(self, in_body: str | None = None, *, task: str | None = None) -> Timeout:
        """How long the caller waits; the query string wins over the body."""
        default = LONG_TIMEOUT if task in GENERATION_TASKS else DEFAULT_TIMEOUT
        text = self._params.get("timeout") or in_body or default
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

    def spelled(self, body: bytes) -> bytes:
        """A JSON body as the request wants to see it."""
        return msgspec.json.format(body, indent=2) + b"\n" if self._pretty else body

    def response(self, value: object) -> Response:
        """A value as the answer."""
        body = self.spelled(msgspec.json.encode(value))
        return Response(body, headers={"content-type": self.media_type.decode()})


def task_named(word: str | None) -> str | None:
    """A task type of the path or the body, in Elasticsearch's words or Hugging Face's; `None` where any will do.

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
    """The type to answer with: the release that `Accept` asks for, else plain JSON."""
    answer = JSON
    for name, value in scope["headers"]:
        if name == b"accept":
            if wanted := _WANTS_VERSION.search(value):
                answer = b"application/vnd.elasticsearch+json;compatible-with=" + wanted[1]
        elif name == b"content-type" and value.partition(b";")[0].strip().lower() not in _BODY_TYPES:
            raise ElasticError(
                "media_type_header_exception",
                f"Content-Type header [{value[:200].decode('latin-1')}] is not supported. Send application/json.",
                status=406,
            )
    return answer
