"""Request bodies of the Elasticsearch face, read strictly."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from hubgate.domain.calls import Context, Embed, InputType
from hubgate.domain.chunking import parse_chunking_settings
from hubgate.domain.endpoint import (
    DEFAULT_REQUESTS_PER_MINUTE,
    Endpoint,
    Similarity,
    Source,
    Task,
    check_name,
)
from hubgate.domain.errors import InvalidEndpoint, InvalidRequest
from hubgate.domain.secret import Secret
from hubgate.service.proving import SERVED_TASKS
from hubgate.web.asgi import decode
from hubgate.web.elastic_problems import (
    ElasticError,
    invalid_action,
    refusal,
    unparsable,
)
from hubgate.web.elastic_request import task_named
from hubgate.web.elastic_settings import SERVICE, Settings
from hubgate.web.embedding import MOST_TEXTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`(?: - at .*)?\.", re.DOTALL)


class InferenceForm(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What is posted to an endpoint."""

    input: str | list[str] | None = None
    input_type: str | None = None
    query: str | None = None
    return_documents: bool | None = None
    top_n: int | None = None
    task_settings: dict[str, Any] | None = None
    timeout: str | None = None
    chunking_settings: dict[str, Any] | None = None
    """hubgate's own: asks for the chunks of each input."""

    def embed(self, context: Context, default: InputType | None) -> Embed:
        """The call that it asks for.

        Raises:
            ElasticError: something is missing, or belongs to another task.
        """
        texts = (self.input,) if isinstance(self.input, str) else self.input
        problems = [*_text_problems(texts), *self._misplaced()]
        if texts is None or problems:
            raise invalid_action(problems)
        return Embed(texts=texts, input_type=_input_type(self.input_type) or default, context=context)

    def _misplaced(self) -> Iterator[str]:
        for key in ("query", "return_documents", "top_n"):
            if getattr(self, key) is not None:
                yield f"Field [{key}] cannot be specified for task type [{Task.TEXT_EMBEDDING}]"


_OBJECT = msgspec.json.Decoder(dict[str, Any])
_INFERENCE = msgspec.json.Decoder(InferenceForm)


def read_inference(body: bytes) -> InferenceForm:
    """The body of a POST.

    Raises:
        ElasticError: it is no JSON, or not of this form.
    """
    return _parsed(body, _INFERENCE)


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
        raise invalid_action([error.message]) from None
    given = Settings("configuration", _parsed(body, _OBJECT))
    wanted = _served(_resolved(task, given.text("task_type")), given.text("service"))
    chunking = parse_chunking_settings(given.map("chunking_settings"))
    given.inner("task_settings")  # an embedding model of this service has none
    settings = given.inner("service_settings")
    url, model, token = settings.text("url"), settings.text("model_id"), settings.text("api_key")
    if url is not None or model is None:
        settings.require(url=url, api_key=token)
    similarity = settings.choice("similarity", Similarity)
    dimensions, max_input_tokens = settings.positive("dimensions"), settings.positive("max_input_tokens")
    allowance = _requests_per_minute(settings)
    given.done()
    endpoint = Endpoint(
        name=name,
        task=wanted,
        source=Source.DEDICATED if url else Source.LOCAL,
        url=url,
        model=model,
        similarity=Similarity(similarity) if similarity else None,
        dimensions=dimensions,
        max_input_tokens=max_input_tokens,
        requests_per_minute=allowance,
        chunking=chunking,
    )
    return endpoint, Secret(token) if token else None


def read_update(endpoint: Endpoint, task: str | None, body: bytes) -> tuple[Endpoint, Secret | None]:
    """An endpoint as an `_update` wants it, and its new token if there is one.

    What is absent stays; `null` brings the default back.

    Raises:
        ElasticError: something in it cannot be used, or cannot be changed.
    """
    given = Settings("configuration", _parsed(body, _OBJECT))
    if _resolved(task, given.text("task_type")) != endpoint.task:
        raise refusal("Task type must match the task type of the existing endpoint")
    given.inner("task_settings")
    settings = given.inner("service_settings")
    allowance, limit = endpoint.requests_per_minute, endpoint.max_input_tokens
    if "rate_limit" in settings:
        allowance = _requests_per_minute(settings)
    if "max_input_tokens" in settings:
        limit = settings.positive("max_input_tokens")
    token = settings.text("api_key")
    given.done()
    changed = replace(endpoint, requests_per_minute=allowance, max_input_tokens=limit)
    return changed, Secret(token) if token else None


def _parsed(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    if not body:
        raise ElasticError("parse_exception", "request body is required")
    try:
        return decode(body, decoder)
    except InvalidRequest as error:
        raise unparsable(_UNKNOWN_FIELD.sub(r"unknown field [\1]", error.message)[:500]) from None


def _text_problems(texts: Sequence[str] | None) -> Iterator[str]:
    if texts is None:
        yield "Field [input] cannot be null"
    elif not texts:
        yield "Field [input] cannot be an empty array"
    elif len(texts) > MOST_TEXTS:
        yield f"Field [input] has {len(texts)} texts, and one request takes at most {MOST_TEXTS}"
    elif "" in texts:
        yield f"Field [input] cannot hold an empty string, and text {texts.index('')} is one (counted from 0)"


def _input_type(word: str | None) -> InputType | None:
    if word is None or word.lower() == "unspecified":
        return None
    try:
        return InputType.parse(word)
    except ValueError:
        known = ", ".join(InputType)
        raise unparsable(f"Invalid value [{word[:200]}]. [input_type] must be one of [{known}]") from None


def _resolved(in_path: str | None, in_body: str | None) -> str:
    """The task type, said in the path, in the body, or in both alike."""
    path, body = task_named(in_path), task_named(in_body)
    if path and body and path != body:
        raise refusal(
            f"Cannot resolve conflicting task_type parameter in the request URL [{path}] and the request body [{body}]"
        )
    if task := path or body:
        return task
    if "any" in (in_path, in_body):
        raise refusal("task_type [any] is not valid type for inference")
    raise refusal("model is missing required setting [task_type]")


def _served(task: str, service: str | None) -> Task:
    if service is None:
        raise refusal("Inference endpoint configuration is missing the [service] setting")
    if service != SERVICE:
        raise refusal(f"Unknown service [{service[:200]}]. This gate has one: [{SERVICE}].")
    if task not in SERVED_TASKS:
        served = ", ".join(SERVED_TASKS)
        raise refusal(
            f"The [{SERVICE}] service does not support task type [{task}]. This version of hubgate serves: {served}."
        )
    return Task(task)


def _requests_per_minute(settings: Settings) -> int:
    return settings.inner("rate_limit").positive("requests_per_minute") or DEFAULT_REQUESTS_PER_MINUTE
