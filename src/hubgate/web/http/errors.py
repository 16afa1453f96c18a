"""Errors as HTTP responses. All status codes are here; each face renders the body."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from hubgate.domain import errors
from hubgate.domain.errors import Cause, HubgateError
from hubgate.web.http.asgi import Headers
from hubgate.web.http.face import RenderError


class MethodNotAllowed(errors.CallerError):
    """The path is served, but not with this method. `allowed` is the value of the `Allow` header."""

    default_cause = Cause.INVALID_REQUEST

    def __init__(self, message: str, *, allowed: str) -> None:
        super().__init__(message, remedy=f"Use {allowed}.")
        self.allowed = allowed


class EmptyBatch(errors.InvalidRequest):
    """The list of texts is empty. TEI has a status of its own for it."""


CALL_FAILURES = (errors.UpstreamError, errors.CapacityError, errors.RuntimeFailed)
"""Failures of the call that validates a new endpoint, as opposed to settings that are not valid."""
_STATUS: dict[type[HubgateError], int] = {
    errors.CallerError: 400,
    errors.NotAuthenticated: 401,
    errors.TooManyWrongKeys: 429,
    errors.NotPermitted: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    errors.EndpointNotFound: 404,
    errors.EndpointExists: 409,
    errors.EndpointConflict: 409,
    errors.InUse: 409,
    errors.NewVectors: 409,
    errors.NotConfirmed: 409,
    # As for a paused server: the caller's key is valid and a retry cannot help. 403 would blame the key, 404 the name,
    # and every client retries 503.
    errors.EndpointDisabled: 424,
    errors.BodyTooLarge: 413,
    # The client can delete files; it has to, before it tries again.
    errors.FilesFull: 413,
    errors.BodyTooSlow: 408,
    errors.CapacityError: 503,
    errors.QueueFull: 429,
    errors.FolderFull: 507,
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
    # The caller's key is valid and a retry cannot help: 424, which no client retries.
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


class ErrorResponse(NamedTuple):
    status: int
    body: bytes
    headers: Headers


def stopping() -> HubgateError:
    """The error of a request that is cancelled because hubgate stops."""
    return errors.CapacityError(
        "hubgate is shutting down.", remedy="Retry in a moment.", cause=Cause.GATE_STOPPING, retry_after=1.0
    )


def status_of(error: HubgateError) -> int:
    """The status from which clients best know what to do next."""
    if isinstance(error, errors.UpstreamError | errors.RuntimeFailed) and error.cause in _STATUS_OF_CAUSE:
        return _STATUS_OF_CAUSE[error.cause]
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def error_response(render: RenderError, error: HubgateError) -> ErrorResponse:
    status, body = render(error, status_of(error))
    return ErrorResponse(status, msgspec.json.encode(body), _headers(error, status))


def render_error(error: HubgateError, status: int) -> tuple[int, object]:
    """Hubgate's own format, of `/api` and the console: `{"error": {"cause", "message", "remedy"}}`."""
    return status, {"error": error_json(error)}


def error_json(error: HubgateError) -> dict[str, str]:
    return {"cause": error.cause, "message": error.message, "remedy": error.remedy}


def _headers(error: HubgateError, status: int) -> list[tuple[bytes, bytes]]:
    # The error formats of Elasticsearch and Hugging Face have no field for the cause.
    headers = [(b"x-hubgate-cause", error.cause.encode())]
    if error.retry_after is not None:
        seconds = max(1, math.ceil(error.retry_after))
        headers.append((b"retry-after", b"%d" % seconds))
        if status == 429:
            headers.append((b"ratelimit", b'"allowance";r=0;t=%d' % seconds))
    if status >= 429:
        # Without it, OpenAI's clients retry all of these twice.
        headers.append((b"x-should-retry", b"true" if error.retryable else b"false"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="hubgate", ApiKey, Basic realm="hubgate"'))
    return headers
