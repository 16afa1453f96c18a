"""Retrying a failed shared request in parts, so that one bad text does not fail the calls of others."""

from __future__ import annotations

from collections import deque

from hubgate.core.queue.batch import TextBatch
from hubgate.core.traffic.retry import MAX_RETRY_AFTER
from hubgate.domain.errors import Cause, HubgateError, UpstreamRefused

_MAX_FRUITLESS = 5
"""How many failures that may be the server's own, less the successes in between, end the search. One bad text is found
among any number, and mostly two; a server that is down gets four extra requests."""
_MAX_REFUSED = 3
"""Parts that are refused in a row end the search for a call at fault: the server takes none at present."""
_FEW = 4
"""Calls that may as well be sent one by one."""
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

    What is refused with 429 may be too much, or meet a server that is full or limits its rate. It is sent once more, and
    then halved as long as the server takes other calls: a single call follows each refusal. A call that is refused alone,
    twice, is at fault, and waits alone. If the server takes none, all that are left wait together.

    Args:
        searches: whether to search for a call at fault after a 429.
    """

    def __init__(self, *, searches: bool = True) -> None:
        self.parts: deque[TextBatch] = deque()
        self.waiting: list[TextBatch] = []
        """What has to be sent again after a pause, as requests of their own."""
        self.found: bool | None = None
        """Whether a search found a call at fault; `None` if there was none."""
        self._searches = searches
        self._fruitless = 0
        self._refused = 0
        """In a row."""
        self._takes_others = False
        self._suspects: list[TextBatch] = []
        """The calls that were refused alone, once."""
        self._confirming = False

    def succeeded(self) -> None:
        self._fruitless -= 1
        self._refused, self._takes_others = 0, True
        self._end()

    def failed(self, batch: TextBatch, error: HubgateError) -> None:
        """Split the request, or fail its calls."""
        if not batch.waits and _is_refusal(error):
            self._was_refused(batch)
        else:
            self._has_failed(batch, error)
        self._end()

    def _has_failed(self, batch: TextBatch, error: HubgateError) -> None:
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

    def _was_refused(self, batch: TextBatch) -> None:
        batch.refusals += 1
        self._refused += 1
        if not self._searches:
            self.waiting.append(batch)
        elif batch.refusals == 1:
            self.parts.append(batch)
            self._refused = 0
        elif self._confirming:
            self.found = batch.waits = True
            self.waiting.append(batch)
        elif self._refused >= _MAX_REFUSED and sum(len(part.parts) for part in self.parts) > _FEW:
            self._suspects += [*self.parts, batch]
            self._give_up_search()
        else:
            self._divide(batch)

    def _divide(self, batch: TextBatch) -> None:
        self.found = self.found or False
        if len(batch.parts) == 1:
            self._suspects.append(batch)
        else:
            self.parts.extend(batch.per_call() if len(batch.parts) <= _FEW else batch.halves())
        self._send_one_first()

    def _give_up_search(self) -> None:
        self.found = False
        first, *others = self._suspects
        self.waiting += first.joined(others)
        self.parts.clear()
        self._suspects.clear()

    def _send_one_first(self) -> None:
        if self.parts:
            largest = max(self.parts, key=lambda part: len(part.parts))
            self.parts.remove(largest)
            if len(largest.parts) > 1:
                largest, others = largest.without_last()
                self.parts.append(others)
            self.parts.appendleft(largest)

    def _end(self) -> None:
        """After the last part, send the calls once more that were refused alone."""
        if self.parts or not self._suspects:
            return
        if not self._takes_others:
            self._give_up_search()
            return
        self._confirming = True
        self.parts.extend(self._suspects)
        self._suspects.clear()

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


def _is_refusal(error: HubgateError) -> bool:
    """Whether the server is overloaded, or says so, and may take the calls soon."""
    soon = (error.retry_after or 0.0) <= MAX_RETRY_AFTER
    return error.cause is Cause.OVERLOADED and error.retryable and soon


def _maybe_bad_text(error: HubgateError) -> bool:
    """Whether one text may have made the server fail. The server may be unhealthy, but is neither down nor asleep."""
    if isinstance(error, UpstreamRefused):
        return error.cause is Cause.UPSTREAM_FAILED and error.status in _MODEL_FAILED_STATUSES
    return error.cause in _MAYBE_BAD_TEXT
