"""Errors that several parts of the core raise."""

from __future__ import annotations

from hubgate.domain.errors import (
    Cause,
    DeadlineExceeded,
    DeadlineUnreachable,
    HubgateError,
    QueueFull,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
    UpstreamUnreadable,
)


def error_for_caller(error: Exception, *, shared: bool) -> HubgateError:
    """A copy of an error, because one exception must not be raised in several tasks.

    Servers quote what they were sent: with `shared`, several callers get the error, and the server's words are left
    out.
    """
    if not isinstance(error, HubgateError):
        internal = HubgateError("hubgate failed on this request.", remedy="See the log for details.")
        internal.__cause__ = None if shared else error
        return internal
    copy: HubgateError = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    if shared and isinstance(error, UpstreamError) and not isinstance(error, UpstreamUnreachable):
        copy.message = f"The model's server failed a request shared by several callers ({error.cause})."
        copy.args = (copy.message,)
        if isinstance(copy, UpstreamRefused):
            copy.server_message = ""
    return copy


def wrong_count(received: int, expected: int) -> UpstreamUnreadable:
    """The error for a reply whose vectors cannot be assigned to the texts."""
    return UpstreamUnreadable(
        f"The model's server returned {received} vectors for {expected} texts.",
        remedy="It may be another server or route than the registered one: check the endpoint's URL and engine.",
        cause=Cause.WRONG_COUNT,
    )


def queue_full(calls: int, wait: float) -> QueueFull:
    return QueueFull(
        f"The queue of this endpoint is full: {calls} calls are waiting.",
        remedy="Retry later or send fewer calls at once. If the server can do more, raise the endpoint's rate limit.",
        retry_after=min(max(wait, 1.0), 60.0),
    )


def deadline_unreachable(wait: float, remaining: float) -> DeadlineUnreachable:
    """The error for a call that would have to wait longer than its deadline allows."""
    return DeadlineUnreachable(
        f"The endpoint's rate limit has no room for this call for at least {wait:.0f} s, "
        f"and its deadline is in {max(remaining, 0.0):.0f} s.",
        remedy="Retry later, with fewer texts or a longer timeout. "
        "If the server can do more, raise the endpoint's rate limit.",
        retry_after=max(wait - max(remaining, 0.0), 1.0),
    )


def deadline_exceeded(seconds: float, *, in_queue: bool) -> DeadlineExceeded:
    where = "in the endpoint's queue" if in_queue else "for the model's server"
    return DeadlineExceeded(
        f"The call's deadline passed after {seconds:.1f} s, while it waited {where}.",
        remedy="Retry later, with fewer texts or a longer timeout.",
        retry_after=1.0,
    )


def endpoint_closing() -> QueueFull:
    return QueueFull(
        "The endpoint is closing: it was changed or removed, or hubgate is stopping.",
        remedy="Retry in a moment.",
        retry_after=1.0,
    )


def request_dropped() -> UpstreamUnreachable:
    return UpstreamUnreachable(
        "The request to the model's server was cancelled before it was answered.", remedy="Retry."
    )
