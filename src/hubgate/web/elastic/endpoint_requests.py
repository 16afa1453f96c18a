"""The bodies of PUT and `_update`."""

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
from hubgate.web.elastic.errors import (
    action_request_validation_exception,
    status_exception,
    validation_exception,
)
from hubgate.web.elastic.options import SERVED_TASKS, SERVICE, parse_body, parse_task

T = TypeVar("T")
CHUNKED_TASKS = frozenset({Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING})
_MAX_INT = 2**31 - 1
_TYPE_NAMES = {str: "String", int: "Integer", dict: "Map", bool: "Boolean"}
_OBJECT = msgspec.json.Decoder(dict[str, Any])
# URLs of Inference Providers. Only provider and model matter: hubgate builds the URL of a call itself.
_HOSTED = re.compile(
    r"https?://router\.huggingface\.co(?:/(?P<provider>[a-z0-9\-]+)/models/(?P<model>[^/]+(?:/[^/]+)?)"
    r"(?:/pipeline/[a-z\-]+|/v1(?:/.*)?)?|/.*)?/?",
)


def read_endpoint(name: str, task: str | None, body: bytes) -> tuple[Endpoint, Secret | None]:
    """The endpoint that a PUT describes, and its token. The checks are in Elasticsearch's order.

    Args:
        name: the id in the path.
        task: the task type in the path.
        body: the request's body.

    Raises:
        InvalidChunking: its chunking settings are not valid.
        ElasticError: something else is not valid.
    """
    try:
        check_name(name)
    except InvalidEndpoint as error:
        raise action_request_validation_exception([error.message]) from None
    configuration = _Settings("configuration", parse_body(body, _OBJECT))
    served_task = _served_task(
        _task_type(task, configuration.text("task_type")), configuration.text("service")
    )
    chunking = None
    if served_task in CHUNKED_TASKS:  # null means Elasticsearch's default
        chunking = parse_chunking_settings(configuration.map("chunking_settings"))
    rerank_settings = _rerank_settings(served_task, configuration.inner("task_settings"))
    settings = configuration.inner("service_settings")
    token = settings.text("api_key")
    source = _source(served_task, settings, token)
    vector_settings = _vector_settings(settings) if served_task is Task.TEXT_EMBEDDING else {}
    rate_limit = _requests_per_minute(settings)
    configuration.check()
    endpoint = Endpoint(
        name=name,
        task=served_task,
        requests_per_minute=rate_limit,
        chunking=chunking,
        **source,
        **vector_settings,
        **rerank_settings,
    )
    return endpoint, Secret(token) if token else None


def read_update(endpoint: Endpoint, task: str | None, body: bytes) -> tuple[Endpoint, Secret | None]:
    """The endpoint as an `_update` changes it, and its new token, if any.

    An absent setting stays; `null` restores the default.

    Raises:
        ElasticError: a setting is not valid, or cannot be changed.
    """
    configuration = _Settings("configuration", parse_body(body, _OBJECT))
    if _task_type(task, configuration.text("task_type")) != endpoint.task:
        raise status_exception("Task type must match the task type of the existing endpoint")
    task_settings = configuration.inner("task_settings")
    named = [key for key in ("top_n", "return_documents") if key in task_settings]
    rerank_settings = _rerank_settings(endpoint.task, task_settings)
    changes: dict[str, Any] = {key: rerank_settings[key] for key in named if key in rerank_settings}
    settings = configuration.inner("service_settings")
    if "rate_limit" in settings:
        changes["requests_per_minute"] = _requests_per_minute(settings)
    if endpoint.task is Task.TEXT_EMBEDDING and "max_input_tokens" in settings:
        changes["max_input_tokens"] = settings.positive("max_input_tokens")
    token = settings.text("api_key")
    configuration.check()
    return replace(endpoint, **changes), Secret(token) if token else None


def _source(task: Task, settings: _Settings, token: str | None) -> dict[str, Any]:
    """Where the model runs: at `url`, unless that is the router's.

    Without `url`, an embedding model runs on this machine, and any other is hosted by an Inference Provider.
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


def _vector_settings(settings: _Settings) -> dict[str, Any]:
    similarity = settings.choice("similarity", Similarity)
    return {
        "similarity": Similarity(similarity) if similarity else None,
        "dimensions": settings.positive("dimensions"),
        "max_input_tokens": settings.positive("max_input_tokens"),
    }


def _rerank_settings(task: Task, settings: _Settings) -> dict[str, Any]:
    if task is not Task.RERANK:
        return {}
    return {"top_n": settings.positive("top_n"), "return_documents": settings.flag("return_documents")}


def _task_type(in_path: str | None, in_body: str | None) -> str:
    """The task type, given in the path, the body, or both."""
    path, body = parse_task(in_path), parse_task(in_body)
    if path and body and path != body:
        raise status_exception(
            f"Cannot resolve conflicting task_type parameter in the request URL [{path}] and the request body [{body}]"
        )
    if task := path or body:
        return task
    if "any" in (in_path, in_body):
        raise status_exception("task_type [any] is not valid type for inference")
    raise status_exception("model is missing required setting [task_type]")


def _served_task(task: str, service: str | None) -> Task:
    if service is None:
        raise status_exception("Inference endpoint configuration is missing the [service] setting")
    if service != SERVICE:
        raise status_exception(f"Unknown service [{service[:200]}]. hubgate has one service: [{SERVICE}].")
    if task not in SERVED_TASKS:
        served = ", ".join(SERVED_TASKS)
        raise status_exception(
            f"The [{SERVICE}] service does not support task type [{task}]. This version of hubgate serves: {served}."
        )
    return Task(task)


def _requests_per_minute(settings: _Settings) -> int:
    return settings.inner("rate_limit").positive("requests_per_minute") or DEFAULT_REQUESTS_PER_MINUTE


class _Settings:
    """A JSON object whose known settings are taken out one by one; `check` refuses what is left.

    An error never repeats a value, since a token may be under a misspelt name. `null` means absent.
    """

    def __init__(self, where: str, given: dict[str, Any], problems: list[str] | None = None) -> None:
        self._where = where
        self._left = dict(given)
        self._inner: list[_Settings] = []
        self._problems: list[str] = [] if problems is None else problems

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def require(self, **values: object) -> None:
        """Record which of these settings are `None`."""
        self._problems += [
            f"[{self._where}] does not contain the required setting [{key}]"
            for key, value in values.items()
            if value is None
        ]

    def text(self, key: str) -> str | None:
        value = self._take(key, str)
        if value is not None and not value.strip():
            self._problems.append(
                f"[{self._where}] Invalid value empty string. [{key}] must be a non-empty string"
            )
        return value

    def positive(self, key: str) -> int | None:
        value = self._take(key, int)
        if value is not None and not 0 < value <= _MAX_INT:
            self._problems.append(
                f"[{self._where}] Invalid value [{str(value)[:40]}]. [{key}] must be a positive integer"
            )
        return value

    def flag(self, key: str) -> bool | None:
        return self._take(key, bool)

    def choice(self, key: str, words: Iterable[str]) -> str | None:
        """One of some words, in lower case."""
        value, words = self._take(key, str), list(words)
        if value is None or value.lower() in words:
            return value and value.lower()
        self._problems.append(
            f"[{self._where}] Invalid value [{value[:200]}] received. [{key}] must be one of [{', '.join(words)}]"
        )
        return None

    def inner(self, key: str) -> _Settings:
        """A nested object; empty if absent."""
        inner = _Settings(key, self._take(key, dict) or {}, self._problems)
        self._inner.append(inner)
        return inner

    def map(self, key: str) -> dict[str, Any] | None:
        return self._take(key, dict)

    def check(self) -> None:
        """Check that no setting is left and all were valid.

        Raises:
            ElasticError: a setting is unknown, missing or out of range, here or in a nested object.
        """
        for inner in self._inner:
            inner.check()
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
