"""A model that several servers run: each request goes to the server of its permit, on a proven connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

from hubgate.core.traffic.balancer import Balancer
from hubgate.core.traffic.concurrency import ConcurrencyLimit
from hubgate.core.traffic.notices import Notice
from hubgate.core.traffic.permits import current_permit
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.replica import Replica
from hubgate.core.vector_guard import VectorGuard
from hubgate.domain.calls import Call, Generated, GenerationCall, Result
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Target
from hubgate.domain.ports import Clock, Events, Handler, Model, TextGenerator, Upstream
from hubgate.upstreams.urls import base_url, host_of

HOSTED = "hosted"


@dataclass(frozen=True, slots=True)
class OpenReplica:
    """One server of the model, and how to prove that it still runs the registered model."""

    name: str
    target: Target
    model: Model
    prove: Callable[[], Awaitable[None]]


class ReplicatedModel:
    """Implements `domain.ports.Upstream` and `TextGenerator`, whichever the task needs.

    A server that is replaced closes its connections. So each connection is proven before the first call is sent on it:
    by a test of the model on that connection.
    """

    def __init__(self, replicas: Sequence[OpenReplica]) -> None:
        self.replicas = replicas
        self._balancer: Balancer | None = None
        self._models: dict[Replica, Model] = {}
        self._handlers: dict[Replica, Handler] = {}

    def balanced(
        self,
        limiters: Sequence[RateLimiter],
        places: Sequence[ConcurrencyLimit],
        waking: Sequence[Notice | None],
        *,
        patient: bool,
        clock: Clock,
    ) -> Balancer:
        """Build the balancer, which decides where requests go. All sequences have one for each replica."""
        servers = []
        for one, limiter, limit, notice in zip(self.replicas, limiters, places, waking, strict=True):
            endpoint = one.target.endpoint
            server = Replica(one.name, limiter, one.prove, places=limit, waking=notice, clock=clock)
            self._models[server] = one.model
            if endpoint.task not in GENERATION_TASKS:
                upstream = cast("Upstream", one.model)
                self._handlers[server] = VectorGuard(upstream, dimensions=endpoint.facts.dimensions)
            servers.append(server)
        self._balancer = Balancer(servers, patient=patient, clock=clock)
        return self._balancer

    async def __call__(self, call: Call) -> Result:
        """Raises: EndpointChanged: the server runs another model."""
        return await self._handlers[self._replica()](call)

    async def generate(self, call: GenerationCall) -> Generated:
        """Raises: EndpointChanged: the server runs another model."""
        return await self._generator().generate(call)

    async def stream(self, call: GenerationCall) -> Events:
        """Raises: EndpointChanged: the server runs another model."""
        return await self._generator().stream(call)

    async def close(self) -> None:
        for one in self.replicas:
            await one.model.close()

    def _replica(self) -> Replica:
        permit = current_permit()
        assert self._balancer is not None  # noqa: S101 - a pipeline has built it
        assert permit is not None  # noqa: S101 - the queue, or a retry, has one
        replica = self._balancer.replica_of(permit)
        replica.check_unchanged()
        permit.prove = replica.prove
        return replica

    def _generator(self) -> TextGenerator:
        return cast("TextGenerator", self._models[self._replica()])


def replica_names(replicas: Sequence[Endpoint]) -> Sequence[str]:
    """How messages and metrics call the replicas: by host, numbered if hosts repeat, and `hosted`."""
    hosts = [host_of(base_url(each.url)) if each.url else HOSTED for each in replicas]
    return [
        host if hosts.count(host) == 1 else f"{host} ({number})" for number, host in enumerate(hosts, start=1)
    ]
