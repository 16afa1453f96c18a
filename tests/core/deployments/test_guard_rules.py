"""When the cost guard acts: single rules, and 10,000 random worlds in virtual time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from hubgate.core.deployments.guard_rules import Reason, Rules, Seen, pause_reason, resumes
from hubgate.domain.endpoint import Endpoint, Source, Task, WakePolicy
from hubgate.domain.errors import InvalidEndpoint
from hubgate.domain.hub import DeploymentState

MONDAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
HOUR = 3600.0
RUNNING, PAUSED, ZERO = DeploymentState.RUNNING, DeploymentState.PAUSED, DeploymentState.SCALED_TO_ZERO


def rules(**fields: Any) -> Rules:
    usual: dict[str, Any] = {
        "name": "e",
        "task": Task.TEXT_EMBEDDING,
        "source": Source.DEDICATED,
        "url": "http://a",
    }
    return Rules.of(Endpoint(**usual | fields))


def seen(state: DeploymentState = RUNNING, **fields: Any) -> Seen:
    usual: dict[str, Any] = {"state": state, "busy": False, "last_use": MONDAY, "paused_for": None}
    return Seen(**usual | fields)


SCHEDULE = {"wake": WakePolicy.SCHEDULE, "wake_hours": "mon-fri 08:00-18:00 UTC"}


@pytest.mark.parametrize(
    ("fields", "known", "hours", "reason"),
    [
        ({}, {}, 1000, None),
        ({"idle_minutes": 30}, {}, 0.49, None),
        ({"idle_minutes": 30}, {}, 0.5, Reason.IDLE),
        ({"idle_minutes": 30}, {"busy": True}, 5, None),
        ({"idle_minutes": 30}, {"state": ZERO}, 5, None),
        ({"idle_minutes": 30}, {"state": PAUSED}, 5, None),
        ({"idle_minutes": 30} | SCHEDULE, {}, 12, None),
        (SCHEDULE, {}, 7.9, Reason.HOURS),
        (SCHEDULE, {}, 7.95, None),
        (SCHEDULE, {}, 17.99, None),
        (SCHEDULE, {}, 18, Reason.HOURS),
        (SCHEDULE, {"busy": True}, 18, None),
        (SCHEDULE, {"state": ZERO}, 18, Reason.HOURS),
        ({"wake": WakePolicy.CALL, "wake_hours": "mon 08:00-18:00 UTC"}, {}, 20, None),
        ({"ends_at": "2026-11-23T12:00+00:00"}, {}, 11.9, None),
        ({"ends_at": "2026-11-23T12:00+00:00"}, {"busy": True}, 12, Reason.ENDED),
    ],
)
def test_pause_needs_a_reason(
    fields: dict[str, Any], known: dict[str, Any], hours: float, reason: Reason | None
) -> None:
    assert pause_reason(rules(**fields), seen(**known), MONDAY + hours * HOUR) is reason


@pytest.mark.parametrize(
    ("paused_for", "hours", "resumed"),
    [
        (Reason.HOURS, 7.9, False),
        (Reason.HOURS, 7.95, True),
        (Reason.HOURS, 17, True),
        (Reason.HOURS, 18, False),
        (Reason.IDLE, 12, False),
        (None, 12, False),
    ],
)
def test_hours_resume_only_what_hours_have_paused(
    paused_for: Reason | None, hours: float, resumed: bool
) -> None:
    known = seen(PAUSED, paused_for=paused_for)
    assert resumes(rules(**SCHEDULE), known, MONDAY + hours * HOUR) is resumed
    ended = rules(**SCHEDULE, ends_at="2026-11-22T12:00+00:00")
    assert not resumes(ended, known, MONDAY + hours * HOUR)


@pytest.mark.parametrize(
    "fields",
    [
        {"wake": WakePolicy.SCHEDULE},
        {"wake_hours": "always"},
        {"ends_at": "tomorrow"},
        {"ends_at": "2026-11-23T12:00"},
    ],
)
def test_settings_that_are_not_valid_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidEndpoint):
        rules(**fields)


@dataclass
class World:
    """An endpoint with random calls, looked at by the guard once a minute."""

    rng: random.Random
    rules: Rules
    now: float = MONDAY
    state: DeploymentState = RUNNING
    paused_for: Reason | None = None
    last_use: float = MONDAY
    ends: tuple[float, ...] = ()
    """When the calls in flight end."""

    def minute(self) -> Reason | None:
        """Calls come and end, then the guard acts."""
        self.now += 60
        self.last_use = max((self.last_use, *(end for end in self.ends if end <= self.now)))
        self.ends = tuple(end for end in self.ends if end > self.now)
        if self.state is RUNNING and self.rng.random() < 0.02:
            self.ends = (*self.ends, self.now + self.rng.expovariate(1 / 600))
        known = Seen(
            state=self.state, busy=bool(self.ends), last_use=self.last_use, paused_for=self.paused_for
        )
        if resumes(self.rules, known, self.now):
            self.state, self.paused_for, self.last_use = RUNNING, None, self.now
            return None
        reason = pause_reason(self.rules, known, self.now)
        if reason is not None:
            self.state, self.paused_for = PAUSED, reason
        return reason


def test_idle_endpoint_is_never_paused_during_a_call() -> None:
    """10,000 worlds of an hour."""
    rng = random.Random(14)
    choices = [rules(idle_minutes=minutes) for minutes in (5, 15, 30)]
    choices.append(rules(**SCHEDULE))
    pauses = 0
    for _ in range(10_000):
        chosen = rng.choice(choices)
        start = MONDAY + rng.choice((7.25, 17.5)) * HOUR
        world = World(rng, chosen, now=start, last_use=start)
        for _ in range(60):
            if world.minute() is None:
                quiet = world.now - world.last_use
                assert world.ends or chosen.idle_seconds is None or quiet < chosen.idle_seconds
                continue
            pauses += 1
            assert not world.ends
            break
    assert pauses > 5000
