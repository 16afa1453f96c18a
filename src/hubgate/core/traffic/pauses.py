"""Pauses: after a refusal, which further requests test, and of a server whose users have something to fall back on.

A 429 does not say whether the server is full or whether it refuses this one request: for its tokens, or its model. So it
pauses everybody, but a few requests go out while it lasts, 0.1 s after it began, then after 0.2 s, 0.4 s and so on. A
server refuses at once what it does not want. A test that is answered, or not refused soon, lets four more pass, and when
enough have passed the pause is over. A true rate limit costs a test each time the pause has become twice as long: ten in a minute.
"""

from __future__ import annotations

import logging
import math
from collections import deque

from hubgate.domain.errors import HubgateError
from hubgate.domain.ports import Clock

REFUSAL = "refusal"
"""The text of a notice of such a pause."""
_FAILURES = 3
PAUSE_SECONDS = 5.0
_FIRST_TEST = 0.1
_ACCEPTED_AFTER, _LONGEST_REFUSAL = 0.25, 1.0
"""Seconds without a refusal, at least and at most, after which a test counts as accepted: twice what the refusal took."""
_SOON = 1.0
"""Seconds within which a test is worth waiting for."""
_MORE = 4
"""Requests that may follow each one that was accepted."""
_ENOUGH = 16
"""Accepted requests that end the pause."""

_log = logging.getLogger(__name__)


class RefusalPause:
    """The pause of one rate limiter. All times are those of its clock, in seconds."""

    __slots__ = ("_accepted", "_next", "_patience", "_room", "_since", "tests", "until")

    def __init__(self) -> None:
        self.until = -math.inf
        """When it ends at the latest."""
        self._since = self._next = -math.inf
        """When it began, or a test was last accepted; and when the next test is due."""
        self._room = self._accepted = 0
        self.tests: deque[float] = deque()
        """When each one was sent whose outcome is not known."""
        self._patience = _ACCEPTED_AFTER

    def begin(self, now: float, seconds: float) -> None:
        """Pause for `seconds`, or go on with a pause until then."""
        if now >= self.until:
            self._since, self._next, self._patience = now, now + _FIRST_TEST, _ACCEPTED_AFTER
            self._room = self._accepted = 0
            self.tests.clear()
        self.until = max(self.until, now + seconds)

    def refused(self, now: float, seconds: float, *, sent: float, first: bool) -> None:
        """Note that a request which was sent then is refused.

        Args:
            now: the time.
            seconds: for which the server wants a pause.
            sent: when the request was sent.
            first: whether it is its call's first refusal. Later ones are a reason to pause the call, not the server.
        """
        if now < self.until and sent >= self._since:
            self._forget(sent)
        if first and now < self.until and sent >= self._since:
            self._room = self._accepted = 0
            self._next = max(self._next, now + max(_FIRST_TEST, now - self._since))
        if first:
            self.begin(now, seconds)
            self._patience = min(max(self._patience, 2 * (now - sent)), _LONGEST_REFUSAL)

    def accepted(self, now: float, *, sent: float) -> None:
        """Note that a request which was sent then is answered."""
        if self._forget(sent):
            self._accept(now)

    def due(self, now: float) -> float:
        """When a request may be sent: a time, maybe past."""
        while self.tests and self.tests[0] + self._patience <= now:
            self._accept(self.tests.popleft() + self._patience)
        if self._accepted >= _ENOUGH:
            self.until = -math.inf
        if now >= self.until or self._room > 0:
            return -math.inf
        known = self.tests[0] + self._patience if self.tests else math.inf
        return min(self.until, self._next, known)

    def estimate(self, now: float) -> float:
        """When a new request can expect to be sent: soon if another test is due soon, else at the end of the pause."""
        due = self.due(now)
        return due if due <= now + _SOON else self.until

    def granted(self, now: float) -> None:
        """Note that a request is sent."""
        if self._room > 0:
            self._room -= 1
        else:
            self._next = now + max(_FIRST_TEST, now - self._since)
        self.tests.append(now)

    def _accept(self, now: float) -> None:
        self._since = now
        self._next = min(self._next, now + _FIRST_TEST)
        self._accepted += 1
        self._room += _MORE

    def _forget(self, sent: float) -> bool:
        """Forget the test that has an outcome; that of others is not known yet."""
        for number in reversed(range(len(self.tests))):
            if self.tests[number] <= sent:
                del self.tests[number]
                return True
        return False


class Outage:
    """After some failures in a row the server is not used for a while; then each failure prolongs the outage.

    It is logged when it begins and when it ends.
    """

    def __init__(self, effect: str, clock: Clock, pause: float = PAUSE_SECONDS) -> None:
        self._effect = effect
        self._clock = clock
        self._pause = pause
        self._failures = 0
        self._until = 0.0

    def lasts(self) -> bool:
        """Whether not to use the server now."""
        return self._failures >= _FAILURES and self._clock() < self._until

    def failed(self, error: HubgateError) -> None:
        self._failures += 1
        if self._failures >= _FAILURES:
            self._until = self._clock() + self._pause
        if self._failures == _FAILURES:
            _log.warning("%s for now: %s %s", self._effect, error, error.remedy)

    def ended(self) -> None:
        if self._failures >= _FAILURES:
            _log.info("the server answers again; before, %s", self._effect)
        self._failures = 0
