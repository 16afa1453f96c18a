"""The time ranges of the usage charts, divided into columns of whole hours or days (UTC), as usage is counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hubgate.domain.records import DAY, HOUR, Tally, UsageRow
from hubgate.web.console.languages import Language


class Range(NamedTuple):
    """A number of columns of `span` seconds each. `axis` and `full` are ICU date skeletons for the axis and for tooltips."""

    columns: int
    span: int
    axis: str
    full: str

    @property
    def by(self) -> str:
        """The granularity of the counts."""
        return "hour" if self.span < DAY else "day"


RANGES = {
    "day": Range(24, HOUR, "jm", "MMMdjm"),
    "week": Range(28, 6 * HOUR, "MMMd", "MMMdjm"),
    "month": Range(30, DAY, "MMMd", "yMMMd"),
    "quarter": Range(90, DAY, "MMMd", "yMMMd"),
    "year": Range(53, 7 * DAY, "yMMM", "yMMMd"),
}
DEFAULT_RANGE = "week"


class Period(NamedTuple):
    """A range at its place in time, in seconds since the epoch."""

    range: Range
    start: int

    @classmethod
    def until(cls, now: float, wanted: Range) -> Period:
        """The period whose last column contains `now`."""
        unit = min(wanted.span, DAY)
        end = int(now) // unit * unit + unit
        return cls(wanted, end - wanted.columns * wanted.span)

    @property
    def end(self) -> int:
        """The end of the last column, exclusive."""
        return self.start + self.range.columns * self.range.span

    @property
    def starts(self) -> Sequence[int]:
        """The starts of the columns."""
        return range(self.start, self.end, self.range.span)

    def columns_of(self, rows: Iterable[UsageRow]) -> list[Tally]:
        """Sums rows of hours or days by column."""
        columns = [Tally() for _ in range(self.range.columns)]
        for row in rows:
            index = (int(row.group[0]) - self.start) // self.range.span
            columns[index].add(row.tally)
        return columns

    def axis(self, language: Language) -> list[str]:
        """Axis labels of the first, the middle and the last column."""
        starts = self.starts
        shown = (starts[0], starts[len(starts) // 2], starts[-1])
        return [language.point(at, self.range.axis, utc=self.range.by == "day") for at in shown]

    def names(self, language: Language) -> list[str]:
        """The full time of each column: days in UTC, hours in the gateway's time zone."""
        return [self.name(at, language) for at in self.starts]

    def name(self, at: float, language: Language) -> str:
        return language.point(at, self.range.full, utc=self.range.by == "day")


def total(tallies: Iterable[Tally]) -> Tally:
    whole = Tally()
    for tally in tallies:
        whole.add(tally)
    return whole
