"""Our errors in each dialect's words: the only place with status codes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from hubgate.domain import errors
from hubgate.domain.errors import Cause, HubgateError
from hubgate.web.elastic import errors as elastic_problems

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubgate.web.http.asgi import Headers


class MethodNotAllowed(errors.CallerError):
    """The path is served, but not with this method. `allowed` is the value of the `Allow` header."""

    default_cause = Cause.INVALID_REQUEST

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message, remedy=f"Use {allowed}.")
        self.allowed = allowed


class EmptyBatch(errors.InvalidRequest):
    """A list of texts without a text, for which TEI has a status of its own."""


_STATUS: dict[type[HubgateError], int] = {
    errors.CallerError: 400,
    errors.NotAuthenticated: 401,
    errors.TooManyWrongKeys: 429,
    errors.NotPermitted: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    errors.EndpointNotFound: 404,
    errors.EndpointExists: 409,
    errors.InUse: 409,
    # As for a paused server: the caller's key was fine and asking again cannot help. 403 would blame the key,
    # 404 the name, and 503 is asked again by every client.
    errors.EndpointDisabled: 424,
    errors.BodyTooLarge: 413,
    errors.BodyTooSlow: 408,
    errors.CapacityError: 503,
    errors.QueueFull: 429,
    errors.KeyLimit: 429,
    errors.DeadlineExceeded: 504,
    errors.UpstreamError: 502,
    errors.EndpointChanged: 424,
    errors.RuntimeFailed: 503,
    errors.StoreFailed: 503,
    HubgateError: 500,
}

_STATUS_OF_CAUSE: dict[Cause, int] = {
    Cause.INPUT_REFUSED: 400,
    Cause.INPUT_TOO_LONG: 413,
    # The gate's own key was fine and asking again cannot help: 424, which no client retries.
    Cause.TOKEN_MISSING: 424,
    Cause.WRONG_TOKEN: 424,
    Cause.TOKEN_LACKS_SCOPE: 424,
    Cause.OUT_OF_CREDIT: 424,
    Cause.MODEL_NOT_FOUND: 424,
    Cause.OLD_ADDRESS: 424,
    Cause.MODEL_UNUSABLE: 424,
    Cause.RUNTIME_MISSING: 424,
    Cause.PAUSED: 424,
    Cause.WAKING: 503,
    Cause.OVERLOADED: 429,
    Cause.UPSTREAM_TIMEOUT: 504,
}

_OPENAI_TYPE = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Problem(NamedTuple):
    """An error as it is sent."""

    status: int
    body: bytes
    headers: Headers


def status_of(error: HubgateError) -> int:
    """The status that tells a client best what to do next."""
    if isinstance(error, errors.UpstreamError | errors.RuntimeFailed) and error.cause in _STATUS_OF_CAUSE:
        return _STATUS_OF_CAUSE[error.cause]
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def problem(face: str, error: HubgateError) -> Problem:
    """An error in the words of a face."""
    status, body = _DIALECTS.get(face, _own)(error, status_of(error))
    return Problem(status, msgspec.json.encode(body), _headers(error, status))


def _headers(error: HubgateError, status: int) -> list[tuple[bytes, bytes]]:
    # The dialects of Elasticsearch and Hugging Face have no field for it.
    headers = [(b"x-hubgate-cause", error.cause.encode())]
    if error.retry_after is not None:
        seconds = max(1, math.ceil(error.retry_after))
        headers.append((b"retry-after", b"%d" % seconds))
        if status == 429:
            headers.append((b"ratelimit", b'"allowance";r=0;t=%d' % seconds))
    if status >= 429:
        # OpenAI's clients ask twice more after any of these, unless they are told.
        headers.append((b"x-should-retry", b"true" if error.retryable else b"false"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="hubgate", ApiKey, Basic realm="hubgate"'))
    return headers


def _openai(error: HubgateError, status: int) -> tuple[int, dict[str, Any]]:
    if error.cause is Cause.INPUT_TOO_LONG:
        status = 400
    return status, {
        "error": {
            "message": str(error),
            "type": _OPENAI_TYPE.get(status, "invalid_request_error" if status < 424 else "api_error"),
            "param": None,
            "code": error.cause,
        }
    }


def _jina(error: HubgateError, status: int) -> tuple[int, object]:
    """OpenAI's, and the words again where the plugins of Jina and Xinference read them."""
    status, body = _openai(error, status)
    return status, {**body, "detail": str(error)}


def _chat(error: HubgateError, status: int) -> tuple[int, object]:
    """OpenAI's below an endpoint's own URL: with what Elasticsearch reads in a stream, and without a 503 (see `_in_tei`)."""
    if status == 503:
        status = 429 if error.retryable else 424
    status, body = _openai(error, status)
    return status, {"error": {**body["error"], "http_status_code": status}}


def _huggingface(error: HubgateError, status: int) -> tuple[int, object]:
    """As text-embeddings-inference spells it; huggingface_hub and huggingface.js both show `error`."""
    status, kind = _in_tei(error, status)
    return status, {"error": str(error), "error_type": kind}


def _in_tei(error: HubgateError, status: int) -> tuple[int, str]:
    if isinstance(error, EmptyBatch):
        return 400, "Empty"
    if error.cause is Cause.INPUT_TOO_LONG:
        return 413, "Validation"
    if isinstance(error, errors.InvalidRequest):
        return 422, "Validation"
    if status == 429 or (status == 503 and error.retryable):
        # No 503: huggingface.js repeats it at once and without end.
        return 429, "Overloaded"
    if status == 503:
        return 424, "Backend"
    return status, "Validation" if status < 424 else "Backend"


_IN_TGI = {"Empty": "validation", "Validation": "validation", "Overloaded": "overloaded"}


def _tgi(error: HubgateError, status: int) -> tuple[int, object]:
    """As text-generation-inference spells it: huggingface_hub makes its exceptions of these words."""
    status, kind = _in_tei(error, status)
    return status, {"error": str(error), "error_type": _IN_TGI.get(kind, "generation")}


def _own(error: HubgateError, status: int) -> tuple[int, object]:
    return status, {"error": {"cause": error.cause, "message": error.message, "remedy": error.remedy}}


_DIALECTS: dict[str, Callable[[HubgateError, int], tuple[int, object]]] = {
    "elastic": elastic_problems.render,
    "openai": _openai,
    "jina": _jina,
    "chat": _chat,
    "huggingface": _huggingface,
    "tgi": _tgi,
}
