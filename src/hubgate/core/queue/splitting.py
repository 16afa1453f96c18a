"""Retrying a failed shared request in parts, so that one bad text does not fail the calls of others."""

from __future__ import annotations

from collections import deque

from hubgate.core.queue.batch import TextBatch
from hubgate.domain.errors import Cause, HubgateError, UpstreamRefused

_MAX_FRUITLESS = 5
"""How many failures that may be the server's own, less the successes in between, end the search. One bad text is found
among any number, and mostly two; a server that is down gets four extra requests."""
_BAD_TEXT = {
    Cause.INVALID_REQUEST,
    Cause.INPUT_REFUSED,
    Cause.INPUT_TOO_LONG,
    Cause.BODY_TOO_LARGE,
}
_MAYBE_BAD_TEXT = {
    Cause.CONNECTION_LOST,  # it crashed
    Cause.WRONG_COUNT,
    Cause.DIMENSIONS_CHANGED,
    Cause.UNREADABLE_REPLY,
}
_MODEL_FAILED_STATUSES = {424, 500}


class SplitRetry:
    """The parts of one failed request that have to be sent again.

    What the server rejects because of a text (413, 422) is halved until the text is found. What may as well be a
    failure of the server (a crash, 500, vectors of a wrong size) is halved only while enough of the parts succeed.
    """

    def __init__(self) -> None:
        self.parts: deque[TextBatch] = deque()
        self._fruitless = 0

    def succeeded(self) -> None:
        self._fruitless -= 1

    def failed(self, batch: TextBatch, error: HubgateError) -> None:
        """Split the request, or fail its calls."""
        suspect = _maybe_bad_text(error)
        self._fruitless += suspect
        if suspect and self._fruitless >= _MAX_FRUITLESS:
            self._give_up(batch, error)
        elif not worth_splitting(error, calls=len(batch.parts), texts=batch.texts):
            batch.fail(error)
        elif error.cause is Cause.WRONG_COUNT:
            # The half of a batch might have the right number, and the vectors of the other half.
            self.parts.extend(batch.per_call())
        else:
            self.parts.extend(batch.halves())

    def _give_up(self, batch: TextBatch, error: HubgateError) -> None:
        left = (batch, *self.parts)
        shared = len(set().union(*(part.callers for part in left))) > 1
        for part in left:
            part.fail(error, shared=shared)
        self.parts.clear()


def worth_splitting(error: HubgateError, *, calls: int, texts: int) -> bool:
    """Whether a half of the request may succeed.

    A call that is alone fails as a whole in any case, so it is split only if it has too many texts (413).
    """
    if error.cause is Cause.NOT_A_NUMBER or _maybe_bad_text(error):
        return calls > 1  # half precision overflows on some texts, and one spoils the whole reply
    if not isinstance(error, UpstreamRefused) or error.retryable or error.cause not in _BAD_TEXT:
        return False
    return calls > 1 or (texts > 1 and error.status == 413)


def _maybe_bad_text(error: HubgateError) -> bool:
    """Whether one text may have made the server fail. The server may be unhealthy, but is neither down nor asleep."""
    if isinstance(error, UpstreamRefused):
        return error.cause is Cause.UPSTREAM_FAILED and error.status in _MODEL_FAILED_STATUSES
    return error.cause in _MAYBE_BAD_TEXT
