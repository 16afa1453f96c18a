"""The geometry of charts, and the columns of the usage page."""

from __future__ import annotations

import re

import pytest

from hubgate.domain.records import BUCKETS, DAY, HOUR, Latency, Tally, UsageRow
from hubgate.features.usage.charts import HEIGHT, MILLISECOND, lines, rounded_up, stacked
from hubgate.features.usage.periods import RANGES, Period, total
from hubgate.web.console.languages import languages

NOON = 1_793_016_000
"""2026-10-26 12:00 UTC, which is 4 Aban 1405."""


@pytest.mark.parametrize(
    ("value", "counted", "top"),
    [
        (0, True, 4),
        (1, True, 4),
        (5, True, 8),
        (97, True, 100),
        (11_200, True, 12_000),
        (1_000_000, True, 1_000_000),
        (0.0034, False, 0.004),
        (0.75, False, 0.8),
        (4.1, False, 6),
    ],
)
def test_a_scale_ends_at_a_round_number_that_is_not_too_large(
    value: float, top: float, *, counted: bool
) -> None:
    assert rounded_up(value, integral=counted) == pytest.approx(top)
    assert rounded_up(value, integral=counted) >= value


def test_scales_of_counts_are_integers() -> None:
    for value in range(1, 5000):
        assert rounded_up(value, integral=True) % 4 == 0


def test_stacked_bars_are_stacked() -> None:
    chart = stacked([[2.0, 0.0], [2.0, 4.0]], integral=True)
    assert chart.scale == [4, 3, 2, 1, 0]
    assert chart.lines == [0, 25, 50, 75, 100]
    assert chart.paths == ["M1 100.00V50.00H9V100.00Z", "M1 50.00V0.00H9V50.00ZM11 100.00V0.00H19V100.00Z"]
    assert chart.width == 20


def test_small_values_stay_visible() -> None:
    (path,) = stacked([[1.0, 1_000_000.0]], integral=True).paths
    heights = [float(bottom) - float(top) for bottom, top in re.findall(r"M\S+ (\S+)V([\d.]+)H", path)]
    assert heights[0] > 0.4
    assert heights[1] == HEIGHT


def test_a_line_has_gaps_where_values_are_missing() -> None:
    chart = lines([[1.0, None, 2.0, 4.0, None, 1.0], [None] * 6])
    assert chart.paths == ["M25 50.00L35 0.00", ""]


def test_a_single_value_is_a_dot() -> None:
    """On the first day there is one point, and a line through it has no length."""
    chart = lines([[1.0, None, 2.0, 4.0, None, 1.0], [None] * 6])
    assert chart.dots == ["M5 75.00h.01M55 75.00h.01", ""]
    assert (lines([[4.0]]).paths, lines([[4.0]]).dots) == ([""], ["M5 0.00h.01"])
    assert stacked([[4.0]], integral=True).dots == ()


def test_an_empty_chart_has_a_scale() -> None:
    assert lines([[None, None]]).scale == [4, 3, 2, 1, 0]
    assert stacked([[]], integral=True).paths == [""]


@pytest.mark.parametrize("name", RANGES)
def test_each_range_ends_with_the_current_column(name: str) -> None:
    period = Period.until(NOON + 1234, RANGES[name])
    assert len(period.starts) == RANGES[name].columns
    assert period.starts[-1] <= NOON + 1234 < period.end
    assert period.start % min(RANGES[name].span, DAY) == 0


def test_hours_and_days_fall_into_their_columns() -> None:
    week = Period.until(NOON, RANGES["week"])
    rows = [
        UsageRow((week.start + hour * HOUR,), Tally(requests=1, latency=Latency([1] * BUCKETS, 0.1, 0.2)))
        for hour in range(7)
    ]
    columns = week.columns_of(rows)
    assert [one.requests for one in columns[:3]] == [6, 1, 0]
    assert columns[0].latency == Latency([6] * BUCKETS, 0.1, 0.2)
    assert total(columns).requests == 7
    year = Period.until(NOON, RANGES["year"])
    days = year.columns_of([UsageRow((year.start + 13 * DAY,), Tally(texts=3))])
    assert [one.texts for one in days[:3]] == [0, 3, 0]


def test_days_are_in_utc_and_in_the_readers_calendar() -> None:
    month = Period.until(NOON, RANGES["month"])
    named = {code: month.names(language)[-1] for code, language in languages().items()}
    assert named == {
        "en": "Oct 26, 2026",
        "zh": "2026年10月26日",
        "ja": "2026年10月26日",
        "fa": "۴ آبان ۱۴۰۵",
    }
    assert month.axis(languages()["fa"]) == ["۵ مهر", "۲۰ مهر", "۴ آبان"]


def test_time_scales_have_steps_of_at_least_a_millisecond() -> None:
    """Otherwise each step of a scale in microseconds would be labelled 0 ms."""
    assert stacked([[0.000004, 0.0]], integral=False, min_step=MILLISECOND).scale == [
        0.004,
        0.003,
        0.002,
        0.001,
        0,
    ]
    assert lines([[0.0002, None]], min_step=MILLISECOND).scale == [0.004, 0.003, 0.002, 0.001, 0]
    assert lines([[2.0]], min_step=MILLISECOND).scale == [2, 1.5, 1, 0.5, 0]


def test_scales_and_durations_are_short_and_in_the_readers_digits() -> None:
    english, persian, chinese = (languages()[code] for code in ("en", "fa", "zh"))
    assert [english.compact(number) for number in (0, 950, 12_000, 3_400_000)] == ["0", "950", "12K", "3.4M"]
    assert chinese.compact(12_000) == "1.2万"
    assert persian.compact(12_000).startswith("۱۲")
    assert [english.duration(seconds) for seconds in (0.00123, 0.0456, 2.345)] == [
        "1.2 ms",
        "46 ms",
        "2.35 sec",
    ]
    assert persian.duration(2) == "۲ ثانیه"
    assert [english.fixed(1, 2), persian.fixed(0.5, 2)] == ["1.00", "۰٫۵۰"]
