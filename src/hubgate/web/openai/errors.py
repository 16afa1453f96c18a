"""Errors in OpenAI's format."""

from __future__ import annotations

from typing import Any

from hubgate.domain.errors import Cause, HubgateError

_TYPE = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def render(error: HubgateError, status: int) -> tuple[int, dict[str, Any]]:
    """The status and the body, `{"error": {"message", "type", "param", "code"}}`."""
    # OpenAI returns 400.
    if error.cause is Cause.INPUT_TOO_LONG:
        status = 400
    return status, {
        "error": {
            "message": str(error),
            # From 424, the fault is not the caller's.
            "type": _TYPE.get(status, "invalid_request_error" if status < 424 else "api_error"),
            "param": None,
            "code": error.cause,
        }
    }


def render_with_detail(error: HubgateError, status: int) -> tuple[int, object]:
    """Like `render`, with the message also where others read it.

    In `detail`, as the clients of Jina, Voyage and Xinference expect, and in `message`, as Cohere's do.
    """
    status, body = render(error, status)
    return status, {**body, "detail": str(error), "message": str(error)}
