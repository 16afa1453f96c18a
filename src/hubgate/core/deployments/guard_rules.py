"""When the cost guard pauses or resumes an Inference Endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from hubgate.core.deployments.waking_hours import WakingHours
from hubgate.domain.endpoint import Endpoint, WakePolicy
from hubgate.domain.errors import InvalidEndpoint
from hubgate.domain.hub import DeploymentState

LEAD_SECONDS = 300.0
"""How long before its hours an endpoint is resumed, so that it is ready when they begin."""
_UP = frozenset(
    {
        DeploymentState.PENDING,
        DeploymentState.INITIALIZING,
        DeploymentState.RUNNING,
        DeploymentState.UPDATING,
        DeploymentState.UPDATE_FAILED,
        DeploymentState.SCALED_TO_ZERO,
    }
)


class Reason(StrEnum):
    """Why the guard acts."""

    IDLE = "idle"
    HOURS = "hours"
    """Its hours are over; or, for a resume, they begin."""
    ENDED = "ended"
    CALL = "call"
    """A call needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """An endpoint's settings for the guard, parsed."""

    wake: WakePolicy = WakePolicy.CALL
    hours: WakingHours | None = None
    idle_seconds: float | None = None
    ends_at: float | None = None
    """Seconds since the epoch."""

    @classmethod
    def of(cls, endpoint: Endpoint) -> Rules:
        """Raises: InvalidEndpoint: hours or a time are not valid, or the policy `schedule` has no hours."""
        hours = WakingHours.parse(endpoint.wake_hours) if endpoint.wake_hours else None
        if endpoint.wake is WakePolicy.SCHEDULE and hours is None:
            raise InvalidEndpoint(
                "The wake policy [schedule] requires [wake_hours].",
                remedy="Set them, for example: mon-fri 08:00-18:00 Europe/Berlin",
            )
        return cls(
            wake=endpoint.wake,
            hours=hours if endpoint.wake is WakePolicy.SCHEDULE else None,
            idle_seconds=endpoint.idle_minutes * 60.0 if endpoint.idle_minutes else None,
            ends_at=_moment(endpoint.ends_at) if endpoint.ends_at else None,
        )

    def ended(self, now: float) -> bool:
        return self.ends_at is not None and now >= self.ends_at

    def may_run(self, now: float) -> bool:
        """Whether it may run at a moment, or soon enough after it to be resumed now."""
        return not self.ended(now) and (
            self.hours is None or self.hours.contain(now) or self.hours.contain(now + LEAD_SECONDS)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the guard knows of an endpoint."""

    state: DeploymentState
    busy: bool
    """Whether a call is queued or in flight."""
    last_use: float
    """The end of the last call, or when it began to run if that is later, in seconds since the epoch."""
    paused_for: Reason | None
    """Why the guard itself paused it; `None` if somebody else did."""


def pause_reason(rules: Rules, seen: Seen, now: float) -> Reason | None:
    """Why to pause an endpoint now. Only the end of its time cuts off calls."""
    if seen.state not in _UP:
        return None
    if rules.ended(now):
        return Reason.ENDED
    if seen.busy:
        return None
    if not rules.may_run(now):
        return Reason.HOURS
    # In its hours, an endpoint with a schedule stays up: it would be resumed at once.
    is_idle = rules.idle_seconds is not None and now - seen.last_use >= rules.idle_seconds
    return Reason.IDLE if is_idle and rules.hours is None and seen.state is DeploymentState.RUNNING else None


def resumes(rules: Rules, seen: Seen, now: float) -> bool:
    """Whether to resume an endpoint because its hours begin. What a person has paused stays paused."""
    return (
        seen.state is DeploymentState.PAUSED
        and seen.paused_for is Reason.HOURS
        and rules.hours is not None
        and rules.may_run(now)
    )


def _moment(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidEndpoint(
            f"[{text[:60]}] is not a time with a UTC offset.", remedy="Write it like 2026-12-24T18:00+01:00."
        )
    return moment.timestamp()
