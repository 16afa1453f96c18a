"""The hours of the week in which an Inference Endpoint runs, on the clock of a time zone.

Hours are those that a clock on the wall shows, so daylight saving time needs no rule: an hour that the clock skips does
not exist, and one that it shows twice counts twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hubgate.domain.errors import InvalidEndpoint

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_SPAN = re.compile(
    r"(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?\s+(?P<from>\d\d?:\d\d)-(?P<to>\d\d?:\d\d)", re.IGNORECASE
)
_EXAMPLE = (
    "Write days, hours and a time zone, for example: mon-fri 08:00-18:00, sat 09:00-12:00 Europe/Berlin"
)


@dataclass(frozen=True, slots=True)
class _Span:
    """Hours of some days, in minutes of the day; the end of a span past midnight is above 24 hours."""

    days: frozenset[int]
    start: int
    end: int

    def contains(self, day: int, minute: float) -> bool:
        """Whether a minute of a weekday is in it: also as a minute after the midnight that follows the day before."""
        today = day in self.days and self.start <= minute < self.end
        return today or ((day - 1) % 7 in self.days and minute < self.end - _DAY_MINUTES)


@dataclass(frozen=True, slots=True)
class WakingHours:
    """Spans of hours on weekdays, in a time zone."""

    spans: tuple[_Span, ...]
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str) -> WakingHours:
        """Parse `mon-fri 08:00-18:00, sat 09:00-12:00 Europe/Berlin`. A span may end on the next day: `22:00-06:00`.

        Raises:
            InvalidEndpoint: the text is not valid, or the time zone is unknown.
        """
        spans, _, zone = text.strip().rpartition(" ")
        return cls(tuple(_span(part.strip(), text) for part in spans.split(",")), _zone(zone, text))

    def contain(self, moment: float) -> bool:
        """Whether a moment, in seconds since the epoch, is in these hours."""
        wall = datetime.fromtimestamp(moment, UTC).astimezone(self.zone)
        minute = wall.hour * 60 + wall.minute + wall.second / 60
        return any(span.contains(wall.weekday(), minute) for span in self.spans)


def _span(part: str, text: str) -> _Span:
    found = _SPAN.fullmatch(part)
    if found is None:
        raise _invalid(text)
    first = _day(found["first"], text)
    last = _day(found["last"], text) if found["last"] else first
    start, end = _minute(found["from"], text), _minute(found["to"], text)
    if start in {_DAY_MINUTES, end}:
        raise _invalid(text)
    days = frozenset((first + step) % 7 for step in range((last - first) % 7 + 1))
    return _Span(days, start, end if end > start else end + _DAY_MINUTES)


def _day(name: str, text: str) -> int:
    if name.lower() not in _DAYS:
        raise _invalid(text)
    return _DAYS.index(name.lower())


def _minute(clock: str, text: str) -> int:
    hours, minutes = (int(part) for part in clock.split(":"))
    total = hours * 60 + minutes
    if minutes > 59 or total > _DAY_MINUTES:
        raise _invalid(text)
    return total


def _zone(name: str, text: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidEndpoint(
            f"[{name[:60]}] is not a known time zone in the hours [{text[:200]}].",
            remedy="Use a name of the IANA database, such as Europe/Berlin, Asia/Tehran or UTC.",
        ) from None


def _invalid(text: str) -> InvalidEndpoint:
    return InvalidEndpoint(f"[{text[:200]}] are not valid hours.", remedy=_EXAMPLE)
