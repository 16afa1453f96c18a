"""Adds a hint to an error once the request is known: where the key belongs, or which endpoint was meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from itertools import islice

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import EndpointNotFound, HubgateError, NotAuthenticated, NotFound
from hubgate.service.keys.credentials import SEND_A_KEY
from hubgate.web.http.asgi import Scope
from hubgate.web.http.head import HIDDEN_PATH
from hubgate.web.http.request_context import context_of

# Where clients of Anthropic, Azure and Google put their keys.
_OTHER_KEY_HEADERS = (b"x-api-key", b"api-key", b"x-goog-api-key")
_MAX_COMPARED = 100
"""Names; one comparison takes up to 50 µs on the event loop."""
_MAX_COMPARED_CHARS = 100
_MAX_SUGGESTED = 3


def add_hint(
    error: HubgateError,
    scope: Scope,
    visible: Callable[[Callable[[str], bool]], Sequence[Endpoint]],
) -> HubgateError:
    """The error, with a remedy for this request where there is one. It only names what is in the key's scope."""
    context = context_of(scope)
    if isinstance(error, NotAuthenticated) and scope["path"] == HIDDEN_PATH:
        remedy = f"{SEND_A_KEY} For clients that cannot, set HUBGATE_KEYS_IN_PATH=1."
        return NotAuthenticated("hubgate does not accept a key in the path.", remedy=remedy)
    headers = dict(scope["headers"])
    has_key = b"authorization" in headers or (
        context.head is not None and context.head.credentials is not None
    )
    if isinstance(error, NotAuthenticated) and not has_key:
        misplaced = next((name for name in _OTHER_KEY_HEADERS if name in headers), None)
        if misplaced is None:
            return error
        message = f"hubgate does not accept a key in the header [{misplaced.decode()}]."
        return NotAuthenticated(message, remedy=SEND_A_KEY)
    if context.key is None or not isinstance(error, EndpointNotFound | NotFound):
        return error
    endpoints = visible(context.may_call)
    if isinstance(error, EndpointNotFound):
        remedy = f"{_suggest(error.name, endpoints)} GET /v1/models lists the names."
        return EndpointNotFound(error.name, remedy.lstrip())
    suggestion = _suggest_for_path(scope["path"], endpoints)
    return NotFound(error.message, remedy=suggestion, cause=error.cause) if suggestion else error


def _suggest(requested: str, endpoints: Iterable[Endpoint]) -> str:
    """The endpoints that run the model of this name, or that have a similar name."""
    requested = requested[:_MAX_COMPARED_CHARS].lower()
    names: list[str] = []
    models: dict[str, list[str]] = {}
    for endpoint in endpoints:
        names.append(endpoint.name)
        for model in _models(endpoint):
            for word in (model, model.rpartition("/")[2]):
                models.setdefault(word, []).append(endpoint.name)
    if requested in models:
        return f"That model is called {_any_of(models[requested])} here."
    similar = get_close_matches(requested, islice(dict.fromkeys((*names, *models)), _MAX_COMPARED))
    found = [name for word in similar for name in ([word] if word in names else models[word])]
    return f"Did you mean {_any_of(found)}?" if found else ""


def _suggest_for_path(path: str, endpoints: Iterable[Endpoint]) -> str:
    """The endpoints that run the model whose repository is in the path instead of a name."""
    path = f"{path.lower()}/"
    names = [one.name for one in endpoints if any("/" in m and f"/{m}/" in path for m in _models(one))]
    return f"That model is called {_any_of(names)} here." if names else ""


def _models(endpoint: Endpoint) -> list[str]:
    return [model.lower() for model in (endpoint.model, endpoint.facts.model) if model]


def _any_of(names: Iterable[str]) -> str:
    *others, last = (f"[{name}]" for name in islice(dict.fromkeys(names), _MAX_SUGGESTED))
    return f"{', '.join(others)} or {last}" if others else last
