"""The estimate of what an endpoint cost, against random histories whose exact bill is known."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from hubgate.core.deployments.costs import DAY, Reading, Spent, spent_between


def test_running_replicas_cost_their_minutes() -> None:
    assert list(spent_between(Reading(0, 2, 0.6), Reading(60, 2, 0.6))) == [
        Spent(0, 1.0, 0.01),
        Spent(0, 1.0, 0.01),
    ]
    assert list(spent_between(Reading(0, 0, 0.6), Reading(60, 0, 0.6))) == []
    assert list(spent_between(Reading(60, 1, 0.6), Reading(60, 1, 0.6))) == []


def test_change_between_two_readings_counts_from_the_middle() -> None:
    (started,) = spent_between(Reading(0, 0, 0.6), Reading(60, 1, 0.6))
    (stopped,) = spent_between(Reading(0, 1, 0.6), Reading(60, 0, 0.6))
    assert started.minutes == stopped.minutes == 0.5


def test_midnight_divides_the_costs_between_days() -> None:
    spent = list(spent_between(Reading(DAY - 60, 1, 60.0), Reading(DAY + 120, 1, 60.0)))
    by_day = {day: sum(one.dollars for one in spent if one.day == day) for day in (0, 1)}
    assert by_day == {0: pytest.approx(1.0), 1: pytest.approx(2.0)}


@pytest.mark.parametrize("seed", range(20))
def test_estimate_is_off_by_at_most_half_a_minute_for_each_change(seed: int) -> None:
    rng = random.Random(seed)
    changes = sorted(rng.uniform(0, 3 * DAY) for _ in range(rng.randint(0, 12)))
    replicas = [rng.randint(0, 3) for _ in range(len(changes) + 1)]
    stretches = zip(pairwise([0.0, *changes, 3.0 * DAY]), replicas, strict=True)
    exact = sum((end - start) / 60 * count for (start, end), count in stretches)

    def read(at: float) -> Reading:
        return Reading(at, replicas[sum(change <= at for change in changes)], 1.0)

    readings = [read(60.0 * minute) for minute in range(3 * DAY // 60 + 1)]
    spent = (one for before, now in pairwise(readings) for one in spent_between(before, now))
    error = sum(abs(after - before) for before, after in pairwise(replicas)) / 2
    assert abs(sum(one.minutes for one in spent) - exact) <= error + 1e-6
