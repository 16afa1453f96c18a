"""Errors in Cohere's format."""

from __future__ import annotations

from hubgate.domain.errors import Cause, HubgateError


def render(error: HubgateError, status: int) -> tuple[int, object]:
    """`{"message"}`, and hubgate's cause as `code`. Cohere's clients select their exception by the status."""
    if error.cause is Cause.INPUT_TOO_LONG:
        status = 400  # as Cohere replies; its clients have no exception for 413
    if status == 502:
        status = 500  # its clients have no exception for 502
    return status, {"message": str(error), "code": error.cause}
