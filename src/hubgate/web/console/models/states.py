"""The current state of an endpoint, from what the gateway knows without calling its server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

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
class State:
    kind: Kind
    cause: Cause | None = None
    seconds: int = 0
    """Until the next queued calls may be sent."""
    waiting: int = 0
    """Queued calls."""
    used: float | None = None
    """Share of the rate limit used in this minute; `None` if there is no limit."""


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
    used = min(1.0, health.limiter.used() / endpoint.requests_per_minute)
    waiting = pipeline.queue.queued_calls if pipeline.queue else 0
    cause = health.breaker.cause
    if cause is not None:
        kind = Kind.PAUSED if cause is Cause.PAUSED else Kind.FAILING
        return State(kind=kind, cause=cause, waiting=waiting, used=used)
    if health.retrier.waking:
        return State(kind=Kind.WAKING, waiting=waiting, used=used)
    if waiting:
        limiter = health.limiter
        seconds = max(1, round(limiter.estimate_wait(0) or limiter.estimate_wait()))
        return State(kind=Kind.WAITING, seconds=seconds, waiting=waiting, used=used)
    return State(kind=Kind.RUNNING, used=used)
