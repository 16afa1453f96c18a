"""Errors in Elasticsearch's format and wording."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from hubgate.domain import errors
from hubgate.domain.chunking import InvalidChunking
from hubgate.domain.errors import Cause, HubgateError

_TYPE: dict[type[HubgateError], str] = {
    HubgateError: "status_exception",
    InvalidChunking: "validation_exception",
    errors.InvalidRequest: "x_content_parse_exception",
    errors.NotAuthenticated: "security_exception",
    errors.NotPermitted: "security_exception",
    errors.EndpointNotFound: "resource_not_found_exception",
    errors.EndpointExists: "resource_already_exists_exception",
    errors.QueueFull: "es_rejected_execution_exception",
    errors.DeadlineExceeded: "timeout_exception",
}

# Where Elasticsearch's status differs from hubgate's own.
_STATUS: dict[type[HubgateError], int] = {
    errors.EndpointExists: 400,
    errors.DeadlineExceeded: 429,
    errors.UpstreamError: 400,
}


class ElasticError(HubgateError):
    """An error in Elasticsearch's words: its `type`, `reason` and status.

    `source` is hubgate's own error, if there is one: cause and retry advice come from it.
    """

    def __init__(
        self, kind: str, reason: str, *, status: int = 400, source: HubgateError | None = None
    ) -> None:
        super().__init__(
            reason,
            cause=source.cause if source else Cause.INVALID_REQUEST,
            retryable=source.retryable if source else False,
            retry_after=source.retry_after if source else None,
        )
        self.kind = kind
        self.status = status


class CreationFailed(ElasticError):
    """The validation call failed, so nothing was stored."""

    def __init__(self, caused_by: HubgateError) -> None:
        super().__init__(
            "status_exception",
            "Could not complete inference endpoint creation as validation call to service threw an exception.",
            source=caused_by,
        )
        self.caused_by = caused_by


class ChatError(HubgateError):
    """An error to be rendered in the format of chat_completion. `status` is hubgate's own for it."""

    def __init__(self, error: HubgateError, status: int) -> None:
        super().__init__(
            error.message, cause=error.cause, retryable=error.retryable, retry_after=error.retry_after
        )
        self.error = error
        self.status = status


def status_exception(reason: str, *, status: int = 400) -> ElasticError:
    """What Elasticsearch raises where it has no more specific type."""
    return ElasticError("status_exception", reason, status=status)


def illegal_argument_exception(reason: str) -> ElasticError:
    """A query parameter is not valid."""
    return ElasticError("illegal_argument_exception", reason)


def parse_exception(reason: str) -> ElasticError:
    """The body does not match its schema."""
    return ElasticError("x_content_parse_exception", reason)


def validation_exception(problems: Iterable[str]) -> ElasticError:
    """Settings are missing or out of range."""
    return ElasticError("validation_exception", _enumerate(problems))


def action_request_validation_exception(problems: Iterable[str]) -> ElasticError:
    """The body matches its schema, but the request is not valid."""
    return ElasticError("action_request_validation_exception", _enumerate(problems))


def describe_call_error(error: HubgateError, name: str, timeout: str) -> HubgateError:
    """An error of a call to an endpoint: Elasticsearch's sentence, which names the endpoint, then hubgate's own."""
    if isinstance(error, errors.UpstreamRefused):
        reason = f"{_describe_status(error.status)} for request from inference entity id [{name}] status [{error.status}]"
        if error.server_message:
            reason += f". Error message: [{error.server_message}]"
        kind, status = "status_exception", error.status if 400 <= error.status < 500 else 400
    elif isinstance(error, errors.DeadlineExceeded):
        reason = f"Request timed out after [{timeout}] for inference id [{name}]"
        kind, status = "timeout_exception", 429
    elif isinstance(error, errors.QueueFull):
        reason = f"Failed to execute task for inference id [{name}] because the request service [{name}] queue is full"
        kind, status = "es_rejected_execution_exception", 429
    else:
        return error
    return ElasticError(kind, f"{reason}. {error}", status=status, source=error)


def render(error: HubgateError, status: int) -> tuple[int, object]:
    """`{"error": {"root_cause": […], "type", "reason", "caused_by"?}, "status"}`.

    On chat_completion: `{"error": {"code", "message", "type"}}`.
    """
    if isinstance(error, ChatError):
        status, body = _status(error.error, error.status), _render_cause(error.error)
        code = HTTPStatus(status).name.lower()
        return status, {"error": {"code": code, "message": body["reason"], "type": body["type"]}}
    status, body = _status(error, status), _render_cause(error)
    if isinstance(error, CreationFailed):
        cause = _render_cause(error.caused_by)
        return status, {"error": {"root_cause": [cause], **body, "caused_by": cause}, "status": status}
    return status, {"error": {"root_cause": [body], **body}, "status": status}


def _render_cause(error: HubgateError) -> dict[str, str]:
    if isinstance(error, ElasticError):
        return {"type": error.kind, "reason": error.message}
    if isinstance(error, errors.EndpointNotFound):
        reason = f"Inference endpoint not found [{error.name[:200]}]"
    elif isinstance(error, errors.EndpointExists) and not isinstance(error, errors.AliasExists):
        reason = f"Inference endpoint [{error.name}] already exists"
    elif isinstance(error, InvalidChunking):
        reason = f"{_enumerate(error.problems)} {error.remedy}".rstrip()
    else:
        reason = str(error)
    return {"type": next(_TYPE[kind] for kind in type(error).__mro__ if kind in _TYPE), "reason": reason}


def _status(error: HubgateError, status: int) -> int:
    if isinstance(error, ElasticError):
        return error.status
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), status)


def _describe_status(status: int) -> str:
    if status in (429, 502, 503):
        return "Received a rate limit status code"
    if status >= 500:
        return "Received a server error status code"
    if status == 413:
        return "Received a content too large status code"
    if status == 401:
        return "Received an authentication error status code"
    if 300 <= status < 400:
        return "Unhandled redirection"
    return "Received an unsuccessful status code"


def _enumerate(problems: Iterable[str]) -> str:
    return "Validation Failed: " + "".join(f"{n}: {problem};" for n, problem in enumerate(problems, 1))
