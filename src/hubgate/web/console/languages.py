"""The languages of the console: words by key, plural forms, numbers and dates, all by ICU.

The words are flat JSON files in `locales/`, of ICU's MessageFormat patterns: one a language, and further ones of larger
pages (`play.en.json`). A key that is missing, unused, or takes other parameters in one language than in English fails a test.

Dates are of the calendar that readers use: the Persian one for Persian, the Gregorian one for the others. Times are
those of the gate's own time zone. Persian numbers are written in Persian digits, except inside technical names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import icu

LOCALES = Path(__file__).parent / "locales"
DEFAULT = "en"
_PERSIAN_DIGITS = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")
_ISOLATE, _POP = "\u2068", "\u2069"
_RELATIVE = (
    (86_400.0, icu.URelativeDateTimeUnit.DAY),
    (3600.0, icu.URelativeDateTimeUnit.HOUR),
    (60.0, icu.URelativeDateTimeUnit.MINUTE),
    (1.0, icu.URelativeDateTimeUnit.SECOND),
)


@dataclass(frozen=True, slots=True)
class Language:
    """One language. `code` is the name of its file, and what the switch says."""

    code: str
    name: str
    """In the language itself."""
    tag: str
    """For HTML."""
    locale: str
    """For ICU."""
    rtl: bool = False
    words: Mapping[str, str] = field(default_factory=dict, repr=False)
    _made: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)
    """ICU's formatters, which are dear to make and serve many times."""

    def say(self, key: str, **values: object) -> str:
        """The words of a key. Numbers among the values are written as the language does.

        In a right-to-left language text among the values is isolated, so that a name in Latin letters does not
        turn the sentence around.
        """
        pattern = self.words[key]
        if not values:
            return pattern
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = icu.MessageFormat(pattern, icu.Locale(self.locale))
        text: str = made.format(list(values), [self._formattable(value) for value in values.values()])
        return text

    def number(self, value: float, *, digits: int = 0) -> str:
        """A number with its group separators, and so many digits behind the point at most."""
        return str(self._numbers("decimal", digits).format(value))

    def fixed(self, value: float, digits: int) -> str:
        """A number with just so many digits behind the point, to stand below others."""
        return str(self._numbers("fixed", digits).format(value))

    def percent(self, share: float) -> str:
        """A share of one in percent, without fractions."""
        return str(self._numbers("percent", 0).format(share))

    def digits(self, text: str) -> str:
        """A number that was typed, in the language's digits. Forms are read in any digits."""
        return text.translate(_PERSIAN_DIGITS) if self.code == "fa" else text

    def date(self, seconds: float) -> str:
        """A day: seconds since the epoch."""
        return str(self._dates(time=False).format(float(seconds)))

    def moment(self, seconds: float) -> str:
        """A day and a time of day: seconds since the epoch."""
        return str(self._dates(time=True).format(float(seconds)))

    def compact(self, value: float) -> str:
        """A number in two or three digits, for the scale of a chart."""
        made = self._made.get("compact")
        if made is None:
            locale = icu.NumberFormatter.withLocale(icu.Locale(self.locale))
            made = self._made["compact"] = locale.notation(icu.Notation.compactShort())
        return str(made.formatDouble(float(value)))

    def duration(self, seconds: float) -> str:
        """How long something took: in milliseconds, or from one second on in seconds."""
        made = self._made.get("duration")
        if made is None:
            made = icu.MeasureFormat(icu.Locale(self.locale), icu.UMeasureFormatWidth.SHORT)
            self._made["duration"] = made
        if seconds >= 1:
            measure = icu.Measure(round(seconds, 2), icu.MeasureUnit.createSecond())
        else:
            thousandths = round(seconds * 1000, 0 if seconds >= 0.01 else 1)
            measure = icu.Measure(thousandths, icu.MeasureUnit.createMillisecond())
        return str(made.formatMeasure(measure))

    def point(self, seconds: float, fields: str, *, utc: bool = False) -> str:
        """A point in time with these fields alone, in the language's order: of ICU's, as `MMMd` or `jm`."""
        made = self._made.get((fields, utc))
        if made is None:
            locale = icu.Locale(self.locale)
            pattern = icu.DateTimePatternGenerator.createInstance(locale).getBestPattern(fields)
            made = self._made[fields, utc] = icu.SimpleDateFormat(pattern, locale)
            if utc:
                made.setTimeZone(icu.TimeZone.getGMT())
        return str(made.format(float(seconds)))

    def ago(self, seconds: float) -> str:
        """How long ago something was, roughly: seconds from then to now; what lies ahead is negative."""
        made = self._made.get("ago")
        if made is None:
            made = self._made["ago"] = icu.RelativeDateTimeFormatter(icu.Locale(self.locale))
        for size, unit in _RELATIVE:
            if abs(seconds) >= size:
                return str(made.formatNumeric(float(-int(seconds / size)), unit))
        return str(made.format(icu.UDateDirection.PLAIN, icu.UDateAbsoluteUnit.NOW))

    def _formattable(self, value: object) -> icu.Formattable:
        if isinstance(value, str):
            return icu.Formattable(f"{_ISOLATE}{value}{_POP}" if self.rtl else value)
        return icu.Formattable(value)

    def _numbers(self, kind: str, digits: int) -> icu.NumberFormat:
        made = self._made.get((kind, digits))
        if made is None:
            create = (
                icu.NumberFormat.createPercentInstance
                if kind == "percent"
                else icu.NumberFormat.createInstance
            )
            made = self._made[kind, digits] = create(icu.Locale(self.locale))
            made.setMaximumFractionDigits(digits)
            if kind == "fixed":
                made.setMinimumFractionDigits(digits)
        return made

    def _dates(self, *, time: bool) -> icu.DateFormat:
        made = self._made.get(("date", time))
        if made is None:
            medium, short, locale = icu.DateFormat.kMedium, icu.DateFormat.kShort, icu.Locale(self.locale)
            made = self._made["date", time] = (
                icu.DateFormat.createDateTimeInstance(medium, short, locale)
                if time
                else icu.DateFormat.createDateInstance(medium, locale)
            )
        return made


@cache
def languages() -> Mapping[str, Language]:
    """All of them, by code, read once."""
    known = (
        Language("en", "English", "en", "en"),
        Language("zh", "中文", "zh-Hans", "zh_Hans"),
        Language("ja", "日本語", "ja", "ja"),
        Language("fa", "فارسی", "fa", "fa@calendar=persian", rtl=True),
    )
    return {
        one.code: Language(one.code, one.name, one.tag, one.locale, one.rtl, _read(one.code)) for one in known
    }


def choose(chosen: str | None, accepted: str) -> Language:
    """The language of a reader: the one chosen by the switch, else the browser's first that there is.

    Args:
        chosen: the code in the cookie.
        accepted: the `Accept-Language` header, whose order browsers keep and whose weights only repeat it.
    """
    known = languages()
    wanted = [chosen or "", *(part.partition(";")[0].strip()[:2].lower() for part in accepted.split(","))]
    return next((known[code] for code in wanted if code in known), known[DEFAULT])


def _read(code: str) -> Mapping[str, str]:
    """Of all files of the language: `en.json`, `play.en.json`, ..."""
    return {
        key: words
        for path in sorted(LOCALES.glob(f"*{code}.json"))
        for key, words in json.loads(path.read_text("utf-8")).items()
    }
