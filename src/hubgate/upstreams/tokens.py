"""The access tokens of one endpoint, taken in turn; one that is refused rests."""

from __future__ import annotations

import time

from hubgate.domain.errors import UpstreamRefused
from hubgate.domain.ports import Clock
from hubgate.domain.secret import Secret

BUSY_SECONDS = 30.0
"""A token's rest after it was used too often, where the server does not say how long."""
REFUSED_SECONDS = 600.0
"""Its rest when it is not accepted, or its account has no credit: somebody must act first."""
_REFUSED = frozenset({401, 402})
_BUSY = 429


class AccessTokens:
    """Says which token the next request bears.

    Args:
        secret: the tokens, one a line; `None` if the server wants none.
        clock: seconds that never go back.
    """

    def __init__(self, secret: Secret | None, clock: Clock = time.monotonic) -> None:
        self._tokens = list(dict.fromkeys(secret.each())) if secret else []
        self._clock = clock
        self._rested_at = dict.fromkeys(self._tokens, 0.0)

    def take(self) -> Secret | None:
        """The next in turn that does not rest; if all do, the one that has rested soonest."""
        if len(self._tokens) < 2:
            return self._tokens[0] if self._tokens else None
        now = self._clock()
        token = min(self._tokens, key=lambda token: max(self._rested_at[token] - now, 0.0))
        self._tokens.remove(token)
        self._tokens.append(token)
        return token

    def refused(self, token: Secret | None, error: UpstreamRefused) -> None:
        """Let a token rest if the refusal was about it, and have the request asked again if there is another."""
        if token is None or (error.status != _BUSY and error.status not in _REFUSED):
            return
        now = self._clock()
        rest = REFUSED_SECONDS if error.status in _REFUSED else error.retry_after or BUSY_SECONDS
        self._rested_at[token] = now + rest
        if any(at <= now for at in self._rested_at.values()):
            error.retryable = True
            error.retry_after = 0.0
