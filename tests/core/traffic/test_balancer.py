"""The balancer between the servers of one model, behind the batch queue, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from scripted_upstream import ScriptedUpstream, embed
from virtual_time import now, run

from hubgate.core.queue.batch_queue import BatchLimits, BatchQueue
from hubgate.core.traffic.balancer import Balancer
from hubgate.core.traffic.circuit_breaker import BreakerGate
from hubgate.core.traffic.concurrency import ConcurrencyLimit
from hubgate.core.traffic.permits import current_permit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.replica import Replica
from hubgate.core.traffic.retry import RetryStep
from hubgate.domain.errors import (
    Cause,
    EndpointChanged,
    HubgateError,
    UpstreamRefused,
    UpstreamUnreachable,
    UpstreamUnreadable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.domain.calls import Call, Result

_GONE = UpstreamUnreachable("It refuses connections.", cause=Cause.CONNECTION_REFUSED)


class Servers:
    """Scripted upstreams behind one queue."""

    def __init__(
        self,
        count: int = 2,
        *,
        requests_per_minute: int = 60_000,
        max_concurrent_requests: int | None = None,
        max_texts: int = 1,
        seconds: float = 0.1,
    ) -> None:
        self.upstreams = [ScriptedUpstream(seconds=seconds) for _ in range(count)]
        self.failures: dict[int, HubgateError] = {}
        self.proofs = [0] * count
        self.limiters = [
            RateLimiter(requests_per_minute, max_concurrent_requests=max_concurrent_requests, clock=now)
            for _ in range(count)
        ]
        replicas = [
            Replica(
                f"server {index}",
                limiter,
                self._prover(index),
                places=ConcurrencyLimit(8, clock=now),
                clock=now,
            )
            for index, limiter in enumerate(self.limiters)
        ]
        self.balancer = Balancer(replicas, clock=now)
        self.queue = BatchQueue(
            RetryStep(self._send, self.balancer),
            limiter=self.balancer,
            places=self.balancer,
            limits=BatchLimits(max_texts=max_texts),
            clock=now,
        )
        self.call = BreakerGate(self.queue, self.balancer)

    def _prover(self, index: int):  # type: ignore[no-untyped-def] # a closure
        async def prove() -> None:
            self.proofs[index] += 1
            await asyncio.sleep(0.01)
            if failure := self.failures.get(index):
                raise failure

        return prove

    async def _send(self, call: Call) -> Result:
        permit = current_permit()
        assert permit is not None
        replica = self.balancer.replica_of(permit)
        replica.check_unchanged()
        index = list(self.balancer.replicas).index(replica)
        if failure := self.failures.get(index):
            raise failure
        return await self.upstreams[index](call)

    def used(self) -> list[int]:
        return [len(upstream.calls) for upstream in self.upstreams]

    async def all(self, count: int) -> Sequence[Result | BaseException]:
        calls = [self.call(embed(f"{number:04}")) for number in range(count)]
        return await asyncio.gather(*calls, return_exceptions=True)

    async def close(self) -> None:
        await self.queue.close()
        await self.balancer.close()
        assert [replica.in_flight for replica in self.balancer.replicas] == [0] * len(self.limiters)
        assert not self.balancer._held


def test_requests_go_to_the_replica_with_the_fewest_in_flight() -> None:
    async def main() -> None:
        servers = Servers(3)
        await servers.all(12)
        assert servers.used() == [4, 4, 4]
        await servers.close()

    run(main())


def test_a_slow_replica_gets_fewer_requests() -> None:
    async def main() -> None:
        servers = Servers(2)
        servers.upstreams[0].seconds = 1.0
        await servers.all(60)
        first, second = servers.used()
        assert first < second
        await servers.close()

    run(main())


def test_each_replica_has_the_rate_limit_of_its_own() -> None:
    async def main() -> None:
        servers = Servers(2, requests_per_minute=60)
        await servers.all(6)
        assert servers.used() == [3, 3]
        assert now() == pytest.approx(2.1)  # 1 s between two requests at each server
        for upstream in servers.upstreams:
            assert [
                after - before for before, after in zip(upstream.times, upstream.times[1:], strict=False)
            ] == (pytest.approx([1.0, 1.0]))
        await servers.close()

    run(main())


def test_concurrency_limit_holds_at_each_replica_while_calls_move() -> None:
    async def main() -> None:
        servers = Servers(3, max_concurrent_requests=2)
        servers.failures[0] = _GONE
        results = await servers.all(30)
        assert not [result for result in results if isinstance(result, BaseException)]
        assert [upstream.busiest for upstream in servers.upstreams] == [0, 2, 2]
        await servers.close()

    run(main())


def test_texts_that_wait_share_requests_as_with_one_server() -> None:
    async def main() -> None:
        servers = Servers(2, requests_per_minute=60, max_texts=32)
        await servers.all(40)
        assert sum(servers.used()) <= 4
        await servers.close()

    run(main())


def test_a_large_call_is_spread_over_the_replicas() -> None:
    async def main() -> None:
        servers = Servers(2, max_texts=4)
        await servers.call(embed(*(f"{number:04}" for number in range(16))))
        assert servers.used() == [2, 2]
        await servers.close()

    run(main())


def test_a_replica_that_refuses_connections_fails_no_call_and_is_tested_with_growing_pauses() -> None:
    async def main() -> None:
        servers = Servers(2)
        servers.failures[0] = _GONE
        for _ in range(100):
            results = await servers.all(2)
            assert not [result for result in results if isinstance(result, BaseException)]
        assert servers.used()[0] == 0
        assert servers.proofs[0] == 3  # in 10 s: after 1, 3 and 7 s
        del servers.failures[0]
        while not servers.used()[0]:
            await servers.all(2)
        assert now() < 16
        await servers.close()

    run(main())


def test_a_server_error_moves_its_call_and_takes_the_replica_out_after_three_in_a_row() -> None:
    async def main() -> None:
        servers = Servers(2)
        servers.failures[0] = UpstreamRefused("It failed.", status=500, cause=Cause.UPSTREAM_FAILED)
        for ready in (True, True, False):
            (result,) = await servers.all(1)
            assert not isinstance(result, BaseException)
            assert servers.balancer.replicas[0].ready is ready
        await servers.close()

    run(main())


def test_input_that_a_server_refuses_is_not_sent_to_another_one() -> None:
    async def main() -> None:
        servers = Servers(2)
        servers.failures[0] = UpstreamRefused("Too long.", status=413, cause=Cause.INPUT_TOO_LONG)
        (result,) = await servers.all(1)
        assert isinstance(result, UpstreamRefused)
        assert servers.used() == [0, 0]
        assert servers.balancer.replicas[0].ready
        await servers.close()

    run(main())


def test_calls_are_rejected_at_once_while_no_replica_works() -> None:
    async def main() -> None:
        servers = Servers(2)
        servers.failures |= {0: _GONE, 1: _GONE}
        await servers.all(2)
        began = now()
        (result,) = await servers.all(1)
        assert isinstance(result, UpstreamUnreachable)
        assert now() == began
        assert "server 0: connection_refused, server 1: connection_refused" in result.message
        assert result.retry_after is not None
        await asyncio.sleep(result.retry_after)
        servers.failures.clear()
        (result,) = await servers.all(1)
        assert not isinstance(result, BaseException)
        await servers.close()

    run(main())


def test_another_model_stops_the_endpoint_only_if_all_replicas_run_it() -> None:
    async def main() -> None:
        servers = Servers(2)
        changed = EndpointChanged("server 0 runs another model.")
        servers.failures |= {0: changed, 1: _GONE}
        (result,) = await servers.all(1)
        assert isinstance(result, UpstreamUnreachable)
        servers.failures[1] = EndpointChanged("server 1 runs another model.")
        await asyncio.sleep(5)
        (result,) = await servers.all(1)
        assert isinstance(result, EndpointChanged)
        assert "runs another model" in result.message
        await servers.close()

    run(main())


def test_a_vector_of_another_size_has_its_replica_tested_but_not_for_each_call() -> None:
    async def main() -> None:
        servers = Servers(2)
        servers.failures[0] = UpstreamUnreadable("4 dimensions", cause=Cause.DIMENSIONS_CHANGED)
        for _ in range(20):  # in 20 seconds
            results = await servers.all(2)
            assert not [one for one in results if isinstance(one, BaseException)], "the other one answers"
            await asyncio.sleep(1)
        assert servers.balancer.replicas[0].requests >= 10, "no call takes it out of service"
        assert servers.proofs[0] == 1
        await asyncio.sleep(30)
        await servers.all(2)
        await asyncio.sleep(1)
        assert servers.proofs[0] == 2
        await servers.close()

    run(main())


def test_a_replica_with_another_model_is_used_again_only_after_a_proof() -> None:
    async def main() -> None:
        servers = Servers(2)
        servers.failures[0] = EndpointChanged("server 0 runs another model.")
        await servers.all(1)
        del servers.failures[0]
        await servers.all(1)
        assert servers.used()[0] == 0
        await asyncio.sleep(1)
        await servers.all(1)  # starts the test
        await servers.all(2)
        assert servers.proofs[0] == 1
        assert servers.used()[0] == 1
        await servers.close()

    run(main())


def test_callers_that_leave_while_they_wait_give_their_permits_back() -> None:
    async def main() -> None:
        servers = Servers(2, requests_per_minute=1)
        await servers.all(2)
        leaving = asyncio.ensure_future(servers.call(embed("abcd")))
        await asyncio.sleep(1)
        leaving.cancel()
        await asyncio.sleep(100)
        await servers.all(2)
        assert servers.used() == [2, 2]
        await servers.close()

    run(main())


def test_a_connection_is_proven_once_and_not_at_all_if_the_proof_fails() -> None:
    class Connection:
        """Stands for one: only its identity matters."""

    async def main() -> None:
        servers = Servers(1)
        replica, connection = servers.balancer.replicas[0], Connection()
        servers.failures[0] = _GONE
        with pytest.raises(UpstreamUnreachable):
            await replica.prove(connection)
        servers.failures.clear()
        for _ in range(3):
            await replica.prove(connection)
        assert servers.proofs[0] == 2
        await replica.prove(Connection())
        assert servers.proofs[0] == 3

    run(main())
