"""The bodies of PUT and `_update` on the Elasticsearch face, read strictly."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from hubgate.domain.chunking import parse_chunking_settings
from hubgate.domain.endpoint import (
    DEFAULT_REQUESTS_PER_MINUTE,
    Endpoint,
    Similarity,
    Source,
    Task,
    check_name,
)
from hubgate.domain.errors import InvalidEndpoint
from hubgate.domain.secret import Secret
from hubgate.service.registry.validation import SERVED_TASKS
from hubgate.web.elastic.errors import (
    action_request_validation_exception,
    status_exception,
    validation_exception,
)
from hubgate.web.elastic.inference_requests import parsed
from hubgate.web.elastic.options import task_named

T = TypeVar("T")
SERVICE = "hugging_face"
CHUNKED_TASKS = frozenset({Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING})
"""Those whose endpoints have chunking settings."""
_MAX_INT = 2**31 - 1
_TYPE_NAMES = {str: "String", int: "Integer", dict: "Map", bool: "Boolean"}
_OBJECT = msgspec.json.Decoder(dict[str, Any])
# The Inference Providers: what they host is found by its model, and the rest of the URL says no more than that.
_HOSTED = re.compile(
    r"https?://router\.huggingface\.co(?:/(?P<provider>[a-z0-9\-]+)/models/(?P<model>[^/]+(?:/[^/]+)?)"
    r"(?:/pipeline/[a-z\-]+|/v1(?:/.*)?)?|/.*)?/?",
)


def read_endpoint(name: str, task: str | None, body: bytes) -> tuple[Endpoint, Secret | None]:
    """The endpoint that a PUT describes, and its token.

    Args:
        name: the id in the path.
        task: the task type in the path.
        body: the request's body.

    Raises:
        InvalidChunking: its chunking settings cannot be used.
        ElasticError: something else in it cannot be used; the checks come in Elasticsearch's order.
    """
    try:
        check_name(name)
    except InvalidEndpoint as error:
        raise action_request_validation_exception([error.message]) from None
    given = _Settings("configuration", parsed(body, _OBJECT))
    wanted = _served(_resolved(task, given.text("task_type")), given.text("service"))
    chunking = None
    if wanted in CHUNKED_TASKS:  # as in Elasticsearch, whose default stands for itself
        chunking = parse_chunking_settings(given.map("chunking_settings"))
    about_ranks = _about_ranks(wanted, given.inner("task_settings"))
    settings = given.inner("service_settings")
    token = settings.text("api_key")
    place = _placed(wanted, settings, token)
    about_vectors = _about_vectors(settings) if wanted is Task.TEXT_EMBEDDING else {}
    allowance = _requests_per_minute(settings)
    given.done()
    endpoint = Endpoint(
        name=name,
        task=wanted,
        requests_per_minute=allowance,
        chunking=chunking,
        **place,
        **about_vectors,
        **about_ranks,
    )
    return endpoint, Secret(token) if token else None


def read_update(endpoint: Endpoint, task: str | None, body: bytes) -> tuple[Endpoint, Secret | None]:
    """An endpoint as an `_update` wants it, and its new token if there is one.

    What is absent stays; `null` brings the default back.

    Raises:
        ElasticError: something in it cannot be used, or cannot be changed.
    """
    given = _Settings("configuration", parsed(body, _OBJECT))
    if _resolved(task, given.text("task_type")) != endpoint.task:
        raise status_exception("Task type must match the task type of the existing endpoint")
    of_task = given.inner("task_settings")
    named = [key for key in ("top_n", "return_documents") if key in of_task]
    about_ranks = _about_ranks(endpoint.task, of_task)
    changes: dict[str, Any] = {key: about_ranks[key] for key in named if key in about_ranks}
    settings = given.inner("service_settings")
    if "rate_limit" in settings:
        changes["requests_per_minute"] = _requests_per_minute(settings)
    if endpoint.task is Task.TEXT_EMBEDDING and "max_input_tokens" in settings:
        changes["max_input_tokens"] = settings.positive("max_input_tokens")
    token = settings.text("api_key")
    given.done()
    return replace(endpoint, **changes), Secret(token) if token else None


def _placed(task: Task, settings: _Settings, token: str | None) -> dict[str, Any]:
    """Where the model runs.

    With a URL at that server, or hosted if it is the router's; without one, by its name alone, a model that embeds runs
    on this machine, and any other is hosted.
    """
    url, model = settings.text("url"), settings.text("model_id")
    hosted = _HOSTED.fullmatch(url) if url else None
    if hosted:
        model = model or hosted["model"]
        settings.require(model_id=model, api_key=token)
        return {"source": Source.ROUTER, "model": model, "provider": hosted["provider"]}
    if url is not None or model is None:
        settings.require(url=url, api_key=token)
        return {"source": Source.DEDICATED, "model": model, "url": url}
    if task is Task.TEXT_EMBEDDING:
        return {"source": Source.LOCAL, "model": model}
    settings.require(api_key=token)
    return {"source": Source.ROUTER, "model": model}


def _about_vectors(settings: _Settings) -> dict[str, Any]:
    similarity = settings.choice("similarity", Similarity)
    return {
        "similarity": Similarity(similarity) if similarity else None,
        "dimensions": settings.positive("dimensions"),
        "max_input_tokens": settings.positive("max_input_tokens"),
    }


def _about_ranks(task: Task, settings: _Settings) -> dict[str, Any]:
    """Only a reranker of this service has task settings."""
    if task is not Task.RERANK:
        return {}
    return {"top_n": settings.positive("top_n"), "return_documents": settings.flag("return_documents")}


def _resolved(in_path: str | None, in_body: str | None) -> str:
    """The task type, said in the path, in the body, or in both alike."""
    path, body = task_named(in_path), task_named(in_body)
    if path and body and path != body:
        raise status_exception(
            f"Cannot resolve conflicting task_type parameter in the request URL [{path}] and the request body [{body}]"
        )
    if task := path or body:
        return task
    if "any" in (in_path, in_body):
        raise status_exception("task_type [any] is not valid type for inference")
    raise status_exception("model is missing required setting [task_type]")


def _served(task: str, service: str | None) -> Task:
    if service is None:
        raise status_exception("Inference endpoint configuration is missing the [service] setting")
    if service != SERVICE:
        raise status_exception(f"Unknown service [{service[:200]}]. This gate has one: [{SERVICE}].")
    if task not in SERVED_TASKS:
        served = ", ".join(SERVED_TASKS)
        raise status_exception(
            f"The [{SERVICE}] service does not support task type [{task}]. This version of hubgate serves: {served}."
        )
    return Task(task)


def _requests_per_minute(settings: _Settings) -> int:
    return settings.inner("rate_limit").positive("requests_per_minute") or DEFAULT_REQUESTS_PER_MINUTE


class _Settings:
    """One JSON object whose known settings are taken out one by one.

    Values are never repeated in an error, for a token may stand under a mistyped name. `null` is the same as absent.
    """

    def __init__(self, where: str, given: dict[str, Any], problems: list[str] | None = None) -> None:
        self._where = where
        self._left = dict(given)
        self._inner: list[_Settings] = []
        self._problems: list[str] = [] if problems is None else problems

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def require(self, **values: object) -> None:
        """Note which of these settings, once taken, are missing."""
        self._problems += [
            f"[{self._where}] does not contain the required setting [{key}]"
            for key, value in values.items()
            if value is None
        ]

    def text(self, key: str) -> str | None:
        """A text that is not empty."""
        value = self._take(key, str)
        if value is not None and not value.strip():
            self._problems.append(
                f"[{self._where}] Invalid value empty string. [{key}] must be a non-empty string"
            )
        return value

    def positive(self, key: str) -> int | None:
        """A whole number from 1 to 2³¹−1."""
        value = self._take(key, int)
        if value is not None and not 0 < value <= _MAX_INT:
            self._problems.append(
                f"[{self._where}] Invalid value [{str(value)[:40]}]. [{key}] must be a positive integer"
            )
        return value

    def flag(self, key: str) -> bool | None:
        """True or false."""
        return self._take(key, bool)

    def choice(self, key: str, words: Iterable[str]) -> str | None:
        """One of some words, in any case; `None` too where it is none of them."""
        value, words = self._take(key, str), list(words)
        if value is None or value.lower() in words:
            return value and value.lower()
        self._problems.append(
            f"[{self._where}] Invalid value [{value[:200]}] received. [{key}] must be one of [{', '.join(words)}]"
        )
        return None

    def inner(self, key: str) -> _Settings:
        """An object within; empty where it is absent."""
        inner = _Settings(key, self._take(key, dict) or {}, self._problems)
        self._inner.append(inner)
        return inner

    def map(self, key: str) -> dict[str, Any] | None:
        """An object that something else reads."""
        return self._take(key, dict)

    def done(self) -> None:
        """All that is known has been taken, here and within.

        Raises:
            ElasticError: something is left, or some of it was missing or out of range.
        """
        for inner in self._inner:
            inner.done()
        if self._left:
            names = ", ".join(f"{key[:100]}=…" for key in list(self._left)[:20])
            raise status_exception(
                f"Configuration contains settings [{{{names}}}] unknown to the [{SERVICE}] service"
            )
        if self._problems:
            raise validation_exception(self._problems)

    def _take(self, key: str, kind: type[T]) -> T | None:
        value = self._left.pop(key, None)
        if value is None or type(value) is kind:
            return value
        raise status_exception(
            f"field [{key}] is not of the expected type. Its value cannot be converted to a [{_TYPE_NAMES[kind]}]"
        )
