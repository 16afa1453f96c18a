"""Hours of the week in a time zone, also across midnight and daylight saving time."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from hubgate.core.deployments.waking_hours import WakingHours
from hubgate.domain.errors import InvalidEndpoint

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: str = "Europe/Berlin") -> float:
    """Seconds since the epoch of a time on the wall."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2026-11-23 07:59:59", False),
        ("2026-11-23 08:00", True),  # a Monday
        ("2026-11-23 17:59:59", True),
        ("2026-11-23 18:00", False),
        ("2026-11-28 08:30", False),  # a Saturday
        ("2026-11-28 09:00", True),
        ("2026-11-29 10:00", False),
    ],
)
def test_hours_hold_on_their_days(moment: str, inside: bool) -> None:
    hours = WakingHours.parse("mon-fri 08:00-18:00, SAT 9:00-12:00 Europe/Berlin")
    assert hours.contain(at(moment)) is inside


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        ("2026-11-27 21:59", False),
        ("2026-11-27 22:00", True),  # Friday night
        ("2026-11-28 05:59", True),
        ("2026-11-28 06:00", False),
        ("2026-11-28 22:30", False),
        ("2026-11-23 03:00", False),  # Monday: the night belongs to Sunday
    ],
)
def test_span_past_midnight_belongs_to_the_day_it_starts_on(moment: str, inside: bool) -> None:
    assert WakingHours.parse("mon-fri 22:00-06:00 Europe/Berlin").contain(at(moment)) is inside


def test_days_may_wrap_around_the_week_and_a_day_may_be_whole() -> None:
    hours = WakingHours.parse("sun-mon 00:00-24:00 Asia/Tehran")
    times = [f"2026-11-{day} {time}" for day in (21, 22, 23, 24) for time in ("00:00", "23:59")]
    inside = [hours.contain(at(time, "Asia/Tehran")) for time in times]
    assert inside == [False, False, True, True, True, True, False, False]


def test_daylight_saving_time_keeps_the_hours_on_the_wall() -> None:
    hours = WakingHours.parse("mon-sun 08:00-18:00 Europe/Berlin")
    assert hours.contain(at("2026-03-28 08:00"))
    assert hours.contain(at("2026-03-29 08:00"))  # the clock went forward that night
    assert at("2026-03-29 08:00") - at("2026-03-28 08:00") == 23 * 3600
    assert not hours.contain(at("2026-10-25 07:59"))
    assert at("2026-10-25 08:00") - at("2026-10-24 08:00") == 25 * 3600


def test_skipped_hour_does_not_exist_and_repeated_hour_counts_twice() -> None:
    night = WakingHours.parse("mon-sun 02:00-03:00 Europe/Berlin")

    def minutes(day: datetime) -> int:
        start, end = day.timestamp(), (day + timedelta(days=1)).timestamp()
        return sum(night.contain(moment) for moment in range(int(start), int(end), 60))

    assert minutes(datetime(2026, 3, 29, tzinfo=BERLIN)) == 0
    assert minutes(datetime(2026, 10, 25, tzinfo=BERLIN)) == 120


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mon-fri",
        "mon-fri 08:00-18:00",
        "mon-fri 8-18 Europe/Berlin",
        "mon-fri 08:00-08:00 Europe/Berlin",
        "mon-fri 24:00-08:00 Europe/Berlin",
        "mon-fri 08:00-25:00 UTC",
        "mon-fri 08:60-18:00 UTC",
        "mon-abc 08:00-18:00 UTC",
        "mon 08:00-18:00,, tue 08:00-18:00 UTC",
        "mon 08:00-18:00 Mars/Olympus",
        "mon 08:00-18:00 ../../etc/passwd",
    ],
)
def test_text_that_is_not_valid_is_refused(text: str) -> None:
    with pytest.raises(InvalidEndpoint):
        WakingHours.parse(text)
