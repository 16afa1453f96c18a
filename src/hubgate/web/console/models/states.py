"""The current state of an endpoint, from what the gateway knows without calling its server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from hubgate.core.traffic.replica import Replica
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import Cause
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Health, Pipeline
from hubgate.service.registry.startup import LOADING


class Kind(StrEnum):
    """Its label has the locale key `state.<kind>`."""

    RUNNING = "running"
    LOADING = "loading"
    WAKING = "waking"
    WAITING = "waiting"
    PAUSED = "paused"
    FAILING = "failing"
    CHANGED = "changed"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaState:
    """One of several servers of a model."""

    name: str
    kind: Kind
    cause: Cause | None = None
    message: str = ""
    """Why it takes no calls."""
    in_flight: int = 0
    requests: int = 0
    """Sent since hubgate started or the settings last changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    kind: Kind
    cause: Cause | None = None
    seconds: int = 0
    """Until the next queued calls may be sent."""
    waiting: int = 0
    """Queued calls."""
    used: float | None = None
    """Share of the rate limit used in this minute; `None` if there is no limit."""
    replicas: Sequence[ReplicaState] = ()
    """If several servers run the model."""

    @property
    def ready_replicas(self) -> int:
        return sum(replica.kind is Kind.RUNNING for replica in self.replicas)


_KINDS = {
    Cause.PAUSED: Kind.PAUSED,
    Cause.WAKING: Kind.WAKING,
    Cause.MODEL_CHANGED: Kind.CHANGED,
}


def state_of(
    gateway: Gateway, endpoint: Endpoint, pipelines: Mapping[str, Pipeline], unready: Mapping[str, str]
) -> State:
    if not endpoint.enabled:
        return State(kind=Kind.OFF)
    if gateway.registry.changed(endpoint.name):
        return State(kind=Kind.CHANGED, cause=Cause.MODEL_CHANGED)
    if reason := unready.get(endpoint.name):
        if reason == LOADING:
            return State(kind=Kind.LOADING)
        return State(kind=Kind.FAILING, cause=Cause.MODEL_UNUSABLE)
    pipeline = pipelines[endpoint.name]
    if pipeline.health is None:
        return State(kind=Kind.RUNNING)
    return _remote_state(endpoint, pipeline, pipeline.health)


def _remote_state(endpoint: Endpoint, pipeline: Pipeline, health: Health) -> State:
    state = State(
        kind=Kind.RUNNING,
        waiting=pipeline.queue.queued_calls if pipeline.queue else 0,
        used=min(1.0, health.limiter.used() / endpoint.requests_per_minute),
        replicas=[_replica_state(each) for each in health.balancer.replicas] if health.balancer else (),
    )
    cause = health.breaker.cause
    if cause is not None:
        return replace(state, kind=_KINDS.get(cause, Kind.FAILING), cause=cause)
    if health.retrier.waking:
        return replace(state, kind=Kind.WAKING)
    if state.waiting:
        limiter = health.limiter
        seconds = max(1, round(limiter.estimate_wait(0) or limiter.estimate_wait()))
        return replace(state, kind=Kind.WAITING, seconds=seconds)
    return state


def _replica_state(replica: Replica) -> ReplicaState:
    error = replica.error
    return ReplicaState(
        name=replica.name,
        kind=Kind.RUNNING if error is None else _KINDS.get(error.cause, Kind.FAILING),
        cause=error.cause if error else None,
        message=error.message if error else "",
        in_flight=replica.in_flight,
        requests=replica.requests,
    )
