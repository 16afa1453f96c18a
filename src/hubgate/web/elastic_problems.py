"""Errors in Elasticsearch's words (`spec` of the face: elastic.md)."""

from __future__ import annotations

from hubgate.domain import errors
from hubgate.domain.errors import HubgateError

_TYPE: dict[type[HubgateError], str] = {
    HubgateError: "status_exception",
    errors.NotAuthenticated: "security_exception",
    errors.NotPermitted: "security_exception",
    errors.EndpointNotFound: "resource_not_found_exception",
    errors.EndpointExists: "resource_already_exists_exception",
    errors.QueueFull: "es_rejected_execution_exception",
    errors.DeadlineExceeded: "timeout_exception",
}


def render(error: HubgateError, status: int) -> tuple[int, object]:
    """Status and body of an error: `{"error": {"root_cause": […], "type", "reason"}, "status"}`."""
    kind = next(_TYPE[cls] for cls in type(error).__mro__ if cls in _TYPE)
    reason = {"type": kind, "reason": str(error)}
    return status, {"error": {"root_cause": [reason], **reason}, "status": status}
