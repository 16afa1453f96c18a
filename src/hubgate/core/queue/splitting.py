"""Asking again in parts where a request that several calls share has failed, so that no text spoils another's call."""

from __future__ import annotations

from collections import deque

from hubgate.core.errors import perhaps_one_texts_fault, worth_halving
from hubgate.core.queue.batch import Batch
from hubgate.domain.errors import Cause, HubgateError

_MOST_IN_VAIN = 5
"""Failures that may be the server's own, less the answers in between, after which the server is left alone. So one
text is found among any number, two mostly, and a server that is down is asked four times in addition."""


class SplitRetry:
    """The parts of one request that are yet to be asked for again.

    What a server refuses for a text's sake (413, 422) is halved to the end. What may as well be the server's own
    failing (it crashed, 500, vectors that do not fit) is halved only while enough of the parts are answered.
    """

    def __init__(self) -> None:
        self.parts: deque[Batch] = deque()
        self._in_vain = 0

    def answered(self) -> None:
        """A part was answered."""
        self._in_vain -= 1

    def failed(self, batch: Batch, error: HubgateError) -> None:
        """The request, or a part of it, failed: ask for it in smaller parts, or tell its callers."""
        suspect = perhaps_one_texts_fault(error)
        self._in_vain += suspect
        if suspect and self._in_vain >= _MOST_IN_VAIN:
            self._give_up(batch, error)
        elif not worth_halving(error, calls=len(batch.parts), texts=batch.texts):
            batch.fail(error)
        elif (
            error.cause is Cause.WRONG_COUNT
        ):  # a part might have the right number, and the vectors of another
            self.parts.extend(batch.calls())
        else:
            self.parts.extend(batch.halves())

    def _give_up(self, batch: Batch, error: HubgateError) -> None:
        left = (batch, *self.parts)
        strangers = len(set().union(*(part.callers for part in left))) > 1
        for part in left:
            part.fail(error, strangers=strangers)
        self.parts.clear()
