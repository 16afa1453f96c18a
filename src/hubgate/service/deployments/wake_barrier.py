"""Between callers and an Inference Endpoint that the cost guard pauses: calls wait here, or are refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hubgate.core.deployments.guard_rules import Rules
from hubgate.domain.calls import Context
from hubgate.domain.endpoint import WakePolicy
from hubgate.domain.errors import Cause, UpstreamError
from hubgate.domain.hub import DeploymentState
from hubgate.domain.ports import Clock

DEFAULT_WAIT = 45.0
"""Seconds for a call without a deadline."""


class WakeBarrier:
    """The barrier of one endpoint. Used on one event loop.

    Args:
        endpoint: its name in hubgate.
        deployment: the name of its Inference Endpoint.
        on_wanted: called when a call needs a paused one.
        clock: seconds since the epoch.
        monotonic: the clock of deadlines.
    """

    def __init__(
        self,
        endpoint: str,
        deployment: str,
        on_wanted: Callable[[], None],
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self._deployment = deployment
        self._on_wanted = on_wanted
        self._clock = clock
        self._monotonic = monotonic
        self.rules = Rules()
        self.last_call = 0.0
        """The end of the last one, in seconds since the epoch."""
        self.wanted = False
        """Whether a call waits for a paused endpoint."""
        self._at_zero = False
        self._passable = asyncio.Event()
        self._passable.set()
        self._paused = False

    def note_call(self) -> None:
        """A call has ended."""
        self.last_call = self._clock()

    def hold(self) -> None:
        """Let new calls wait until `show`."""
        self._passable.clear()

    def show(self, state: DeploymentState, *, paused_by_guard: bool) -> None:
        """Follow the state of the Inference Endpoint."""
        self._at_zero = state is DeploymentState.SCALED_TO_ZERO
        self._paused = state is DeploymentState.PAUSED and paused_by_guard
        starting = {DeploymentState.PENDING, DeploymentState.INITIALIZING}
        if self._paused:
            self._passable.clear()
        elif state not in starting:
            self.wanted = False
            self._passable.set()

    async def admit(self, context: Context) -> None:
        """Let a call pass, wait until its Inference Endpoint runs, or refuse it.

        Raises:
            UpstreamError: it is paused or scaled to zero, and this call may not wake it; or it did not start in time.
        """
        if self._passable.is_set() and not self._at_zero:
            return
        deadline = context.deadline or self._monotonic() + DEFAULT_WAIT
        while not self._passable.is_set():
            if self._paused:
                self._require_right(context)
                self.wanted = True
                self._on_wanted()
            try:
                async with asyncio.timeout(deadline - self._monotonic()):
                    await self._passable.wait()
            except TimeoutError:
                raise UpstreamError(
                    f"The Inference Endpoint [{self._deployment}] is being resumed, and did not start in time.",
                    remedy="Try again in a minute, or use a longer timeout.",
                    cause=Cause.WAKING,
                    retryable=True,
                    retry_after=30.0,
                ) from None
        if self._at_zero:
            self._require_right(context)

    def _require_right(self, context: Context) -> None:
        """Check that a call may wake the endpoint."""
        why = None
        if context.bulk and not context.wake:
            why = "and bulk calls do not wake it"
        elif self.rules.wake is WakePolicy.NEVER:
            why = "and its wake policy is [never]"
        elif not self.rules.may_run(self._clock()):
            why = "and its time is over" if self.rules.ended(self._clock()) else "and it is outside its hours"
        if why is None:
            return
        bulk = " A bulk job wakes it with --wake (X-Hubgate-Wake: true)." if context.bulk else ""
        verb = "scaled to zero" if self._at_zero else "paused"
        raise UpstreamError(
            f"The Inference Endpoint [{self._deployment}] of [{self.endpoint}] is {verb}, {why}.",
            remedy=f"An operator can run: hubgate deploy resume {self._deployment}.{bulk}",
            cause=Cause.PAUSED,
            retryable=False,
        )
