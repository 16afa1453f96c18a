"""The times that the usage page tells of: a range, cut into columns of whole hours or days as they are counted (UTC)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hubgate.domain.records import DAY, HOUR, Tally, UsageRow
from hubgate.web.console.languages import Language


class Range(NamedTuple):
    """So many columns, each of so many seconds. `axis` and `full` are the fields of a time, short and whole."""

    columns: int
    span: int
    axis: str
    full: str

    @property
    def by(self) -> str:
        """What is counted: hours, or days."""
        return "hour" if self.span < DAY else "day"


RANGES = {
    "day": Range(24, HOUR, "jm", "MMMdjm"),
    "week": Range(28, 6 * HOUR, "MMMd", "MMMdjm"),
    "month": Range(30, DAY, "MMMd", "yMMMd"),
    "quarter": Range(90, DAY, "MMMd", "yMMMd"),
    "year": Range(53, 7 * DAY, "yMMM", "yMMMd"),
}
USUAL = "week"


class Period(NamedTuple):
    """A range that ends now."""

    range: Range
    start: int
    """Seconds since the epoch."""

    @classmethod
    def until(cls, now: float, wanted: Range) -> Period:
        """The range whose last column holds this moment."""
        unit = min(wanted.span, DAY)
        end = int(now) // unit * unit + unit
        return cls(wanted, end - wanted.columns * wanted.span)

    @property
    def end(self) -> int:
        """Just after its last column."""
        return self.start + self.range.columns * self.range.span

    @property
    def starts(self) -> Sequence[int]:
        """Of its columns."""
        return range(self.start, self.end, self.range.span)

    def columns_of(self, rows: Iterable[UsageRow]) -> list[Tally]:
        """What was counted by hour or day, by column."""
        columns = [Tally() for _ in range(self.range.columns)]
        for row in rows:
            place = (int(row.group[0]) - self.start) // self.range.span
            columns[place].add(row.tally)
        return columns

    def axis(self, language: Language) -> list[str]:
        """The first column's time, the middle one's and the last one's."""
        starts = self.starts
        shown = (starts[0], starts[len(starts) // 2], starts[-1])
        return [language.point(at, self.range.axis, utc=self.range.by == "day") for at in shown]

    def names(self, language: Language) -> list[str]:
        """The whole time of each column. Days are UTC's, hours are told in the gate's time zone."""
        return [self.name(at, language) for at in self.starts]

    def name(self, at: float, language: Language) -> str:
        """A whole time."""
        return language.point(at, self.range.full, utc=self.range.by == "day")


def total(tallies: Iterable[Tally]) -> Tally:
    """All together."""
    whole = Tally()
    for tally in tallies:
        whole.add(tally)
    return whole
