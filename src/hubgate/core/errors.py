"""What goes wrong with a request that several calls share: whose fault it may be, and what each may be told."""

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

_ONE_TEXTS_FAULT = {
    Cause.INVALID_REQUEST,
    Cause.INPUT_REFUSED,
    Cause.INPUT_TOO_LONG,
    Cause.BODY_TOO_LARGE,
}
_PERHAPS_ONE_TEXTS_FAULT = {
    Cause.CONNECTION_LOST,  # it crashed
    Cause.WRONG_COUNT,
    Cause.DIMENSIONS_CHANGED,
    Cause.UNREADABLE_REPLY,
}
_STATUSES_OF_A_FAILED_MODEL = {424, 500}


def worth_halving(error: HubgateError, *, calls: int, texts: int) -> bool:
    """Whether a half of the request may be answered where the whole was not, however often it was tried.

    A call that is alone fails as a whole in any case, so its texts are asked for in halves only where there were too
    many of them (413).
    """
    if error.cause is Cause.NOT_A_NUMBER or perhaps_one_texts_fault(error):
        return calls > 1  # half precision overflows on some texts, and one spoils the whole reply
    if not isinstance(error, UpstreamRefused) or error.retryable or error.cause not in _ONE_TEXTS_FAULT:
        return False
    return calls > 1 or (texts > 1 and error.status == 413)


def perhaps_one_texts_fault(error: HubgateError) -> bool:
    """Whether a server may have failed over one text. It may as well be unwell, but it is neither down nor asleep."""
    if isinstance(error, UpstreamRefused):
        return error.cause is Cause.UPSTREAM_FAILED and error.status in _STATUSES_OF_A_FAILED_MODEL
    return error.cause in _PERHAPS_ONE_TEXTS_FAULT


def error_for_caller(error: Exception, *, strangers: bool) -> HubgateError:
    """The error for one of the calls: a copy, as one exception must not be raised in several tasks.

    With `strangers` in the request the server's words are left out, because servers quote what they were sent.
    """
    if not isinstance(error, HubgateError):
        failed = HubgateError("The gate itself failed on this request.", remedy="Its log says more.")
        failed.__cause__ = None if strangers else error
        return failed
    copy: HubgateError = type(error).__new__(type(error), *error.args)
    copy.__dict__.update(error.__dict__)
    if strangers and isinstance(error, UpstreamError) and not isinstance(error, UpstreamUnreachable):
        copy.message = f"The model's server failed a request shared by several callers ({error.cause})."
        copy.args = (copy.message,)
        if isinstance(copy, UpstreamRefused):
            copy.server_message = ""
    return copy


def wrong_count(got: int, asked: int) -> UpstreamUnreadable:
    """The error for a reply of which nobody can tell whose vectors are whose."""
    return UpstreamUnreadable(
        f"The model's server returned {got} vectors for {asked} texts.",
        remedy="It is not what was registered, or its route is another one: check the endpoint's URL and engine.",
        cause=Cause.WRONG_COUNT,
    )


def queue_full(calls: int, wait: float) -> QueueFull:
    """The error where there is no room to wait."""
    return QueueFull(
        f"The queue of this endpoint is full: {calls} calls wait in it.",
        remedy="Ask again later, or with fewer calls at once; if its server can do more, raise the endpoint's rate limit.",
        retry_after=min(max(wait, 1.0), 60.0),
    )


def deadline_unreachable(wait: float, patience: float) -> DeadlineUnreachable:
    """The error for a call that would wait in vain."""
    return DeadlineUnreachable(
        f"The endpoint's rate limit cannot take this call for another {wait:.0f} s at the least; "
        f"its time is up in {max(patience, 0.0):.0f} s.",
        remedy="Ask again later, with fewer texts or with a longer timeout; "
        "if its server can do more, raise the endpoint's rate limit.",
        retry_after=max(wait - max(patience, 0.0), 1.0),
    )


def deadline_exceeded(seconds: float, *, in_queue: bool) -> DeadlineExceeded:
    """The error for a call whose time ran out after so many seconds."""
    where = "in the endpoint's queue" if in_queue else "for the model's server to answer"
    return DeadlineExceeded(
        f"The call's time ran out: after {seconds:.1f} s it still waited {where}.",
        remedy="Ask again later, with fewer texts or with a longer timeout.",
        retry_after=1.0,
    )


def endpoint_closing() -> QueueFull:
    """The error for calls that come or wait while the endpoint is closed."""
    return QueueFull(
        "The endpoint is being closed: it was changed or removed, or the gate stops.",
        remedy="Ask again in a moment.",
        retry_after=1.0,
    )


def request_dropped() -> UpstreamUnreachable:
    """The error for a request that was ended before its answer."""
    return UpstreamUnreachable(
        "The request to the model's server was ended before it answered.", remedy="Ask again."
    )
