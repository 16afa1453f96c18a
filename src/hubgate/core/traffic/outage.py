"""When not to use a server that fails, for uses that have something else to fall back on."""

from __future__ import annotations

import logging

from hubgate.domain.errors import HubgateError
from hubgate.domain.ports import Clock

_FAILURES = 3
PAUSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


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
