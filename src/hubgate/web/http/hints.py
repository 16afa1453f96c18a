"""What an error can tell more of, once the request is known: only errors pay for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import EndpointNotFound, HubgateError, NotAuthenticated, NotFound
from hubgate.service.keys.credentials import SEND_A_KEY
from hubgate.web.http.asgi import Scope
from hubgate.web.http.request_context import context_of

UNREAD = "/k/"
"""The path in place of one that holds a key, where keys in paths are off."""
# Where clients of Anthropic's, Azure's and Google's put their keys.
_OTHER_HEADERS = (b"x-api-key", b"api-key", b"x-goog-api-key")
_IN_PATH = f"{SEND_A_KEY} For clients that cannot, start the gate with HUBGATE_KEYS_IN_PATH=1."
_LISTED = "GET /v1/models lists the names."
_MOST_COMPARED = 100
"""Names; a comparison takes up to 50 µs of the event loop."""
_LONGEST_COMPARED = 100
_MOST_NAMED = 3


def add_hint(
    error: HubgateError,
    scope: Scope,
    headers: Mapping[bytes, bytes],
    endpoints: Callable[[], Sequence[Endpoint]],
) -> HubgateError:
    """The error, or the same with a remedy that fits this request.

    Args:
        error: of the request.
        scope: of the request; no endpoint out of its key's scope is named.
        headers: of the request, their names in lower case.
        endpoints: gives all that are registered.
    """
    context = context_of(scope)
    if isinstance(error, NotAuthenticated) and scope["path"] == UNREAD:
        return NotAuthenticated("The gate reads no key from the path.", remedy=_IN_PATH)
    if isinstance(error, NotAuthenticated) and b"authorization" not in headers:
        return next((_misplaced(name) for name in _OTHER_HEADERS if name in headers), error)
    if context.key is None or not isinstance(error, EndpointNotFound | NotFound):
        return error
    shown = [endpoint for endpoint in endpoints() if context.may_call(endpoint.name)]
    if isinstance(error, EndpointNotFound):
        return EndpointNotFound(error.name, f"{_meant(error.name, shown)} {_LISTED}".lstrip())
    meant = _meant_in_path(scope["path"], shown)
    return NotFound(error.message, remedy=meant, cause=error.cause) if meant else error


def _misplaced(header: bytes) -> NotAuthenticated:
    return NotAuthenticated(f"The gate reads no key from the header [{header.decode()}].", remedy=SEND_A_KEY)


def _meant(asked: str, endpoints: Iterable[Endpoint]) -> str:
    """Which endpoints run the model of this name, or else have a name like it; empty if none."""
    asked = asked[:_LONGEST_COMPARED].lower()
    names: list[str] = []
    models: dict[str, list[str]] = {}
    for endpoint in endpoints:
        names.append(endpoint.name)
        for model in _models(endpoint):
            for word in (model, model.rpartition("/")[2]):
                models.setdefault(word, []).append(endpoint.name)
    if asked in models:
        return _called(models[asked])
    alike = get_close_matches(asked, islice(dict.fromkeys((*names, *models)), _MOST_COMPARED))
    near = [name for word in alike for name in ([word] if word in names else models[word])]
    return f"Did you mean {_listed(near)}?" if near else ""


def _meant_in_path(path: str, endpoints: Iterable[Endpoint]) -> str:
    """Which endpoints run the model whose repository stands where one segment, a name, was wanted; empty if none."""
    path = f"{path.lower()}/"
    names = [one.name for one in endpoints if any("/" in m and f"/{m}/" in path for m in _models(one))]
    return _called(names) if names else ""


def _models(endpoint: Endpoint) -> list[str]:
    return [model.lower() for model in (endpoint.model, endpoint.facts.model) if model]


def _called(names: Iterable[str]) -> str:
    return f"That model is called {_listed(names)} here."


def _listed(names: Iterable[str]) -> str:
    *most, last = (f"[{name}]" for name in islice(dict.fromkeys(names), _MOST_NAMED))
    return f"{', '.join(most)} or {last}" if most else last
