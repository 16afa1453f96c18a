"""Errors of hubgate's own API."""

from __future__ import annotations

from hubgate.domain.errors import HubgateError


def render(error: HubgateError, status: int) -> tuple[int, object]:
    """`{"error": {"cause", "message", "remedy"}}`."""
    return status, {"error": {"cause": error.cause, "message": error.message, "remedy": error.remedy}}
