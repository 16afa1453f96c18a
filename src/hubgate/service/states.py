"""The current state of endpoints, from what gateways know without calling a server: this one, and those it shares with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from hubgate.core.traffic.balancer import Balancer
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.core.traffic.replica import Replica
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import Cause, StoreFailed
from hubgate.service.inference.pipeline import Health, Pipeline
from hubgate.service.registry.startup import LOADING

if TYPE_CHECKING:
    from hubgate.service.gateway import Gateway

_log = logging.getLogger(__name__)


class Kind(StrEnum):
    """Its label has the locale key `state.<kind>`. Of several gateways, the last of these counts."""

    RUNNING = "running"
    WAITING = "waiting"
    LOADING = "loading"
    WAKING = "waking"
    PAUSED = "paused"
    FAILING = "failing"
    CHANGED = "changed"
    OFF = "off"


_KNOWN_TO_ALL = frozenset({Kind.OFF, Kind.CHANGED})
"""Stored, so that every gateway knows it at once."""
_ORDER = {kind: number for number, kind in enumerate(Kind)}


class ReplicaState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of several servers of a model."""

    name: str
    kind: Kind = Kind.RUNNING
    cause: Cause | None = None
    message: str = ""
    """Why it takes no calls."""
    in_flight: int = 0
    concurrency_limit: int = 0
    """How many may be in flight now."""
    requests: int = 0
    """Sent since hubgate started or the settings last changed."""


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    kind: Kind = Kind.RUNNING
    cause: Cause | None = None
    seconds: int = 0
    """Until the next queued calls may be sent."""
    waiting: int = 0
    """Queued calls."""
    in_flight: int = 0
    """Requests that its server has not answered yet."""
    concurrency_limit: int = 0
    """The current limit of requests in flight, which adapts to the server; 0 if the endpoint has none."""
    used: float | None = None
    """Share of the rate limit used in this minute; `None` if there is no limit."""
    replicas: Sequence[ReplicaState] = ()
    """If several servers run the model."""
    gateways: Mapping[str, State] = {}
    """The state at each gateway by its name, if there are several."""

    @property
    def ready_replicas(self) -> int:
        return sum(replica.kind is Kind.RUNNING for replica in self.replicas)


_KINDS = {
    Cause.PAUSED: Kind.PAUSED,
    Cause.WAKING: Kind.WAKING,
    Cause.MODEL_CHANGED: Kind.CHANGED,
}
_DECODER = msgspec.json.Decoder(dict[str, State])


def state_of(gateway: Gateway, endpoint: Endpoint, pipeline: Pipeline, unready: Mapping[str, str]) -> State:
    """The state of an endpoint at this gateway."""
    if not endpoint.enabled:
        return State(kind=Kind.OFF)
    if gateway.registry.changed(endpoint.name):
        return State(kind=Kind.CHANGED, cause=Cause.MODEL_CHANGED)
    if reason := unready.get(endpoint.name):
        if reason == LOADING:
            return State(kind=Kind.LOADING)
        return State(kind=Kind.FAILING, cause=Cause.MODEL_UNUSABLE)
    queue = pipeline.queue
    if queue is None:
        return State()
    state = State(waiting=queue.queued_calls, in_flight=queue.in_flight, concurrency_limit=queue.limit)
    if pipeline.health is not None:
        state = _with_health(state, pipeline.health)
    return _with_limit(state, endpoint, queue.limiter) if endpoint.is_rate_limited else state


def merge(own: State, states: Mapping[str, State]) -> State:
    """The state of an endpoint at several gateways, by their names: sums, and the worst kind with its cause.

    It has the replicas of this gateway's `own` state, as those of others may be from before a change.
    """
    worst = max(states.values(), key=lambda state: _ORDER[state.kind])
    used = [state.used for state in states.values() if state.used is not None]
    return State(
        kind=worst.kind,
        cause=worst.cause,
        seconds=max(state.seconds for state in states.values()),
        waiting=sum(state.waiting for state in states.values()),
        in_flight=sum(state.in_flight for state in states.values()),
        concurrency_limit=sum(state.concurrency_limit for state in states.values()),
        used=min(1.0, sum(used)) if used else None,
        replicas=tuple(_merge_replica(replica, states.values()) for replica in own.replicas),
        gateways=states if len(states) > 1 else {},
    )


class States:
    """The states of endpoints at this gateway and the others of its database."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def of(self, endpoints: Sequence[Endpoint]) -> list[State]:
        """The states in the same order; the endpoints are registered now."""
        own = self._own(endpoints)  # before anything is awaited, because then an endpoint may be removed
        reported = await self._reported()
        return [_with_others(endpoint.name, own[endpoint.name], reported) for endpoint in endpoints]

    async def reader(self) -> Callable[[Endpoint], State]:
        """A function that returns the state of an endpoint that is registered when it is called."""
        reported, unready = await self._reported(), self._gateway.startup.unready()

        def state(endpoint: Endpoint) -> State:
            return _with_others(endpoint.name, self._own_state(endpoint, unready), reported)

        return state

    def report(self) -> str:
        """The states that are not idle, in JSON for other gateways. They know themselves what is disabled or changed."""
        endpoints = self._gateway.registry.endpoints()
        states = {
            name: state
            for name, state in self._own(endpoints).items()
            if state.kind not in _KNOWN_TO_ALL and not _is_idle(state)
        }
        return msgspec.json.encode(states).decode()

    async def _reported(self) -> Mapping[str, Mapping[str, State] | None]:
        """The states of endpoints by gateway; `None` for this one."""
        gates = self._gateway.gates
        if gates is None:
            return {}
        try:
            reports = await gates.states()
        except StoreFailed as error:
            _log.warning("the states of other gateways are not known: %s", error)
            return {}
        found: dict[str, Mapping[str, State] | None] = {}
        for gate_id, gate_name, endpoints in reports:
            name = gate_name if gate_name not in found else f"{gate_name} ({gate_id})"
            found[name] = None if gate_id == gates.own_id else _decode(endpoints)
        return found

    def _own(self, endpoints: Sequence[Endpoint]) -> dict[str, State]:
        unready = self._gateway.startup.unready()
        return {endpoint.name: self._own_state(endpoint, unready) for endpoint in endpoints}

    def _own_state(self, endpoint: Endpoint, unready: Mapping[str, str]) -> State:
        pipeline = self._gateway.live.find(endpoint.name).pipeline
        return state_of(self._gateway, endpoint, pipeline, unready)


def _decode(endpoints: str) -> Mapping[str, State]:
    try:
        return _DECODER.decode(endpoints or "{}")
    except msgspec.MsgspecError as error:  # a gateway of another version
        _log.warning("the states of another gateway cannot be read: %s", error)
        return {}


def _with_others(name: str, own: State, reported: Mapping[str, Mapping[str, State] | None]) -> State:
    """The state of an endpoint at all gateways."""
    if own.kind in _KNOWN_TO_ALL or not reported:
        return own
    return merge(
        own,
        {gate: own if states is None else states.get(name, State()) for gate, states in reported.items()},
    )


def _is_idle(state: State) -> bool:
    return replace(state, used=None, concurrency_limit=0) == State() and not state.used


def _with_health(state: State, health: Health) -> State:
    if health.balancer:
        state = replace(state, replicas=[_replica_state(each) for each in health.balancer.replicas])
    cause = health.breaker.cause
    if cause is not None:
        return replace(state, kind=_KINDS.get(cause, Kind.FAILING), cause=cause)
    return replace(state, kind=Kind.WAKING) if health.retrier.waking else state


def _with_limit(state: State, endpoint: Endpoint, limiter: RateLimiter | Balancer) -> State:
    state = replace(state, used=min(1.0, limiter.used() / endpoint.requests_per_minute))
    if state.kind is not Kind.RUNNING or not state.waiting:
        return state
    seconds = max(1, round(limiter.estimate_wait(0) or limiter.estimate_wait()))
    return replace(state, kind=Kind.WAITING, seconds=seconds)


def _replica_state(replica: Replica) -> ReplicaState:
    error = replica.error
    return ReplicaState(
        name=replica.name,
        kind=Kind.RUNNING if error is None else _KINDS.get(error.cause, Kind.FAILING),
        cause=error.cause if error else None,
        message=error.message if error else "",
        in_flight=replica.in_flight,
        concurrency_limit=replica.places.limit,
        requests=replica.requests,
    )


def _merge_replica(own: ReplicaState, states: Iterable[State]) -> ReplicaState:
    parts = [part for state in states for part in state.replicas if part.name == own.name] or [own]
    worst = max(parts, key=lambda part: _ORDER[part.kind])
    in_flight, requests = sum(part.in_flight for part in parts), sum(part.requests for part in parts)
    limit = sum(part.concurrency_limit for part in parts)
    return replace(worst, in_flight=in_flight, concurrency_limit=limit, requests=requests)
