"""Several servers of one model: which one takes a request, which ones rest, and where a failed request goes."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar

from hubgate.core.errors import deadline_exceeded, error_for_caller
from hubgate.core.traffic.permits import Permit, current_permit, sending_under
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.replica import INPUT_ERRORS, Replica
from hubgate.core.traffic.retry import Retrier
from hubgate.domain.calls import Call, GenerationCall
from hubgate.domain.errors import Cause, EndpointChanged, HubgateError, UpstreamError
from hubgate.domain.ports import Clock

C = TypeVar("C", bound="Call | GenerationCall")
R = TypeVar("R")

_log = logging.getLogger(__name__)

_PASSING = frozenset({Cause.WAKING, Cause.OVERLOADED})
"""Conditions that callers may wait for."""
_TEST_SECONDS = 30.0
"""Timeout of a test, which includes the wait for its permit."""


class Balancer:
    """Sends each request to the replica with the fewest requests in flight, within that replica's own rate limit.

    In the places of an endpoint with one server, it takes the roles of the rate limiter (which replica's permit is
    granted decides where the request goes), of the concurrency limit (the sum of the replicas'), of the retrier (a failed
    request moves to another replica), and of the circuit breaker (calls are rejected while no replica works).

    Args:
        replicas: in order of preference among equals.
        patient: whether calls wait for servers that sleep or are overloaded; not if there is a fallback.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        *,
        patient: bool = True,
        clock: Clock = time.monotonic,
    ) -> None:
        self.replicas = replicas
        self._patient = patient
        self._clock = clock
        self._by_limiter = {replica.limiter: replica for replica in replicas}
        self._held: dict[Permit, Permit | None] = {}
        """For each permit that was granted, the one under which its request is sent now."""
        self._waiting: set[asyncio.Future[None]] = set()
        self.in_flight = 0
        """Requests of the queue at all replicas."""
        self.on_raise: Callable[[], None] | None = None
        self._tests: set[asyncio.Task[None]] = set()
        for replica in replicas:
            replica.places.on_raise = self._raised
            replica.retrier = Retrier(
                replica.limiter,
                places=replica.places,
                patient=patient,
                elsewhere=partial(self._moves_on, replica),
                waking=replica.waking,
                clock=clock,
            )

    def replica_of(self, permit: Permit) -> Replica:
        """The replica that a permit is for."""
        return self._by_limiter[permit.limiter]

    # As a rate limiter

    @property
    def counts_tokens(self) -> bool:
        return any(replica.limiter.counts_tokens for replica in self.replicas)

    async def acquire(self, tokens: int = 1, *, texts: int = 1, retry: bool = False) -> Permit:
        """Wait for a permit of any replica; a retry's is of the replica that its request was sent to."""
        held = current_permit()
        if retry and held is not None:
            limiter = (self._held.get(held) or held).limiter
            return self._granted(await limiter.acquire(tokens, retry=True))
        return await self._acquire(tokens, texts)

    def try_acquire(self, tokens: int = 1) -> Permit | None:
        """A permit, if there is one without waiting."""
        self._start_tests()
        for replica in self._usable():
            if replica.places.in_flight < replica.places.limit:
                permit = replica.limiter.try_acquire(tokens)
                if permit is not None:
                    return self._granted(permit)
        return None

    def try_take(self, *, texts: int, tokens: int) -> Permit | None:
        """The same, filled."""
        permit = self.try_acquire(tokens)
        if permit is not None:
            self.fill(permit, texts=texts, tokens=tokens)
        return permit

    def fill(self, permit: Permit, *, texts: int, tokens: int) -> None:
        """See `RateLimiter.fill`."""
        permit.limiter.fill(permit, texts=texts, tokens=tokens)

    def release(self, permit: Permit) -> None:
        """End a request, wherever it was sent in the end."""
        held = self._held.pop(permit, None)
        if held is not None:
            held.limiter.release(held)
            self._free_place(held)

    def cancel(self, permit: Permit) -> None:
        """Give back a permit under which nothing was sent."""
        del self._held[permit]
        permit.limiter.cancel(permit)
        self._free_place(permit)

    def estimate_wait(self, requests: int = 1) -> float:
        """Seconds until the last of `requests` further permits is granted, at the earliest."""
        usable = self._usable()
        share = math.ceil(requests / len(usable))
        return min(replica.limiter.estimate_wait(share) for replica in usable)

    def used(self) -> int:
        """Requests that count now against a replica's limit, on average."""
        return sum(replica.limiter.used() for replica in self.replicas) // len(self.replicas)

    # As a concurrency limit

    @property
    def limit(self) -> int:
        """Of requests in flight at all replicas."""
        return sum(replica.places.limit for replica in self.replicas)

    # As a retrier

    @property
    def waking(self) -> bool:
        """Whether calls wait for a server that sleeps."""
        return not any(one.ready and not (one.retrier and one.retrier.waking) for one in self.replicas)

    async def run(
        self, send: Callable[[C], Awaitable[R]], call: C, tokens: int, deadline: float = math.inf
    ) -> R:
        """Send a call to the replica of its permit. If that fails, send it to each other replica once.

        Raises:
            HubgateError: what the last replica raised.
        """
        original = current_permit()
        assert original is not None  # noqa: S101 - the queue grants one
        permit, failed = original, set[Replica]()
        while True:
            replica = self.replica_of(permit)
            assert replica.retrier is not None  # noqa: S101 - set above
            replica.requests += 1
            try:
                with sending_under(permit):
                    result = await replica.retrier.run(send, call, tokens, deadline)
            except UpstreamError as error:
                failed.add(replica)
                replica.failed(error)
                self._start_tests()
                self._wake_waiting()
                is_slow_text = error.cause is Cause.UPSTREAM_TIMEOUT and not error.retryable
                if (
                    error.cause in INPUT_ERRORS
                    or is_slow_text
                    or all(other in failed or other.changed for other in self.replicas)
                ):
                    raise self._for_caller(error) from None
                _log.info("replica %s failed (%s), using another one", replica.name, error.cause)
            else:
                if not replica.changed:  # only a test shows that the registered model is back
                    replica.succeeded()
                return result
            permit = await self._move(original, permit, tokens, failed)

    # As a circuit breaker

    @property
    def cause(self) -> Cause | None:
        """Why no replica works, if none does."""
        first = self._usable()[0]
        return None if first.error is None or first.error.cause is Cause.WAKING else first.error.cause

    def check(self, caller: str) -> Awaitable[None] | None:  # noqa: ARG002 - as a circuit breaker's
        """Let a call pass, unless no replica works. Returns nothing to await.

        Raises:
            HubgateError: the failure of the replica that will be tried first.
        """
        if any(replica.ready for replica in self.replicas):
            return None
        self._start_tests()
        first = self._usable()[0]
        now = self._clock()
        if first.error is None or now >= first.retry_at:
            return None
        if first.error.cause in _PASSING and self._patient:
            return None
        error = error_for_caller(first.error, shared=False)
        if not isinstance(error, EndpointChanged):
            causes = ", ".join(f"{one.name}: {one.error.cause}" for one in self.replicas if one.error)
            error.message = f"Requests to the model's servers are paused, because none works ({causes})."
            error.args = (error.message,)
            error.retryable, error.retry_after = True, first.retry_at - now
        raise error

    def succeeded(self) -> None:
        """`run` has noted it."""

    def failed(self, error: UpstreamError, caller: str) -> None:
        """`run` has noted it."""

    async def test_all(self) -> None:
        """Test every replica now."""
        await asyncio.gather(*(self._test(replica) for replica in self.replicas))

    async def close(self) -> None:
        """End the tests."""
        for test in self._tests:
            test.cancel()
        await asyncio.gather(*self._tests, return_exceptions=True)

    def _moves_on(self, failed: Replica) -> bool:
        """Whether a call that failed there is not retried there: another replica works, or it was only a test."""
        is_test = failed.error is not None and failed.error.cause not in _PASSING
        return is_test or any(other.ready for other in self.replicas if other is not failed)

    def _for_caller(self, error: UpstreamError) -> HubgateError:
        """What is wrong with one replica must not stop the endpoint, unless it is wrong with all."""
        others = [replica.error for replica in self.replicas if not replica.changed]
        if isinstance(error, EndpointChanged) and others:
            return error_for_caller(others[0] or error, shared=True)
        return error

    def _usable(self, avoid: Collection[Replica] = ()) -> list[Replica]:
        """The replicas to choose from, best first: those that work, otherwise the one that may work first."""
        found = [replica for replica in self.replicas if replica not in avoid]
        ready = [replica for replica in found if replica.ready]
        if ready:
            return sorted(ready, key=lambda replica: replica.in_flight)
        return [min(found or self.replicas, key=_may_work_at)]

    async def _acquire(self, tokens: int, texts: int, avoid: Collection[Replica] = ()) -> Permit:
        loop = asyncio.get_running_loop()
        while True:
            self._start_tests()
            changed = loop.create_future()
            self._waiting.add(changed)
            try:
                found = [one for one in self._usable(avoid) if one.places.in_flight < one.places.limit]
                for replica in found:
                    permit = replica.limiter.try_acquire(tokens, texts)
                    if permit is not None:
                        return self._granted(permit)
                permit = await _first_permit([one.limiter for one in found], tokens, texts, changed)
                if permit is not None:
                    return self._granted(permit)
            finally:
                self._waiting.discard(changed)

    async def _move(
        self, original: Permit, permit: Permit, tokens: int, failed: Collection[Replica]
    ) -> Permit:
        """A permit of another replica. The former is released first: two calls must not wait for each other's."""
        texts = permit.texts
        self._held[original] = None
        permit.limiter.release(permit)
        self._free_place(permit)
        moved = await self._acquire(tokens, texts, failed)
        del self._held[moved]
        self._held[original] = moved
        moved.limiter.fill(moved, texts=texts, tokens=tokens)
        return moved

    def _granted(self, permit: Permit) -> Permit:
        self._held[permit] = permit
        self.replica_of(permit).places.in_flight += 1
        return permit

    def _free_place(self, permit: Permit) -> None:
        self.replica_of(permit).places.in_flight -= 1
        self._wake_waiting()

    def _raised(self) -> None:
        self._wake_waiting()
        if self.on_raise is not None:
            self.on_raise()

    def _wake_waiting(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def _start_tests(self) -> None:
        """Test the replicas that are suspect or whose pause is over, in the background, so that no call pays for it."""
        if all(replica.ready and not replica.suspect for replica in self.replicas):
            return
        now, is_any_ready = self._clock(), any(replica.ready for replica in self.replicas)
        for replica in self.replicas:
            is_over = not replica.ready and now >= replica.retry_at
            if replica.testing or not (is_over or replica.suspect):
                continue
            if is_any_ready or replica.changed or replica.suspect:  # otherwise the next call is the test
                replica.testing, replica.suspect = True, False
                loop = asyncio.get_running_loop()
                test = loop.create_task(self._test(replica), context=contextvars.Context())
                self._tests.add(test)
                test.add_done_callback(self._tests.discard)

    async def _test(self, replica: Replica) -> None:
        try:
            async with asyncio.timeout(_TEST_SECONDS):
                await replica.prove()
        except HubgateError as error:
            replica.failed(error, in_test=True)
        except TimeoutError:
            replica.failed(deadline_exceeded(_TEST_SECONDS, in_queue=False), in_test=True)
        else:
            replica.succeeded()
        finally:
            replica.testing = False
            self._wake_waiting()


def _may_work_at(replica: Replica) -> tuple[bool, bool, float]:
    passing = replica.error is not None and replica.error.cause in _PASSING
    return replica.changed, not passing, replica.retry_at


async def _first_permit(
    limiters: Sequence[RateLimiter], tokens: int, texts: int, changed: asyncio.Future[None]
) -> Permit | None:
    """The permit that is granted first; `None` if the replicas to choose from have changed before."""
    waits = [asyncio.ensure_future(limiter.acquire(tokens, texts=texts)) for limiter in limiters]
    pending: list[asyncio.Future[Any]] = [*waits, changed]
    chosen: Permit | None = None
    try:
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        chosen = next((wait.result() for wait in waits if wait.done()), None)
        return chosen
    finally:
        for wait in waits:
            wait.cancel()
        for granted in await asyncio.gather(*waits, return_exceptions=True):
            if isinstance(granted, Permit) and granted is not chosen:
                granted.limiter.cancel(granted)
