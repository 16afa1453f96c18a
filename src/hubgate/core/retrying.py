"""Trying again what may succeed the next time."""

from __future__ import annotations

import asyncio
import math
import random
import time
from typing import TYPE_CHECKING

from hubgate.core.sharing import tokens_guessed, weight
from hubgate.domain.calls import Vectors
from hubgate.domain.errors import Cause, HubgateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubgate.core.limiting import Allowance
    from hubgate.domain.calls import Call, Result
    from hubgate.domain.ports import Answer, Clock

_PASSES = frozenset({Cause.WAKING, Cause.OVERLOADED})
"""What time alone cures: it is asked again for as long as the caller can wait."""
_LONGEST_SILENCE = 300.0
"""Seconds after which a server is asked again whatever it said: the longest rate limit window of Hugging Face."""


class Retried:
    """Tries again after errors that are `retryable`, with growing pauses, within the caller's deadline.

    The first try uses the permit of whoever calls this, and every further one takes its own. What the server says of
    its load (`retry_after`, its `quota`, or that it is overloaded) slows the allowance, and so everybody who shares it.

    Args:
        answer: what may fail.
        allowance: the one that the first try's permit is of.
        tries: how many at most, of failures that time alone may not cure.
        first_pause: seconds before the second try; each pause is about twice the one before.
        longest_pause: seconds.
        clock: seconds that never go back.
        chance: numbers from 0 to 1, so that many who failed together do not come back together.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        allowance: Allowance,
        tries: int = 3,
        first_pause: float = 1.0,
        longest_pause: float = 5.0,
        clock: Clock = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._answer = answer
        self._allowance = allowance
        self._tries = tries
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._clock = clock
        self._chance = chance

    async def __call__(self, call: Call) -> Result:
        """Answer one call.

        Raises:
            HubgateError: what the last try raised.
        """
        deadline = math.inf if call.context.deadline is None else call.context.deadline
        tried = 0
        while True:
            try:
                result = await (self._again(call) if tried else self._answer(call))
            except HubgateError as error:
                tried += 1
                pause = self._heed(error, tried)
                wait = max(pause, self._allowance.wait_estimate())
                spent = tried >= self._tries and error.cause not in _PASSES
                if not error.retryable or spent or self._clock() + wait >= deadline:
                    raise
            else:
                if isinstance(result, Vectors) and result.quota is not None:
                    self._allowance.slow_down(result.quota.seconds, result.quota.remaining)
                return result
            await asyncio.sleep(pause)

    async def _again(self, call: Call) -> Result:
        tokens = tokens_guessed(sum(map(weight, call.texts)), texts=len(call.texts))
        permit = await self._allowance.take(tokens, again=True)
        try:
            return await self._answer(call)
        finally:
            self._allowance.done(permit)

    def _heed(self, error: HubgateError, tried: int) -> float:
        """Seconds until the next try; tells the allowance what the server said."""
        pause = min(self._first_pause * 2.0 ** (tried - 1), self._longest_pause) * (1 + self._chance()) / 2
        if error.retry_after is not None:
            pause = min(error.retry_after, _LONGEST_SILENCE)
        if error.retry_after is not None or error.cause is Cause.OVERLOADED:
            self._allowance.slow_down(pause)
        return pause
