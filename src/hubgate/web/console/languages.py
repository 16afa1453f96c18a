"""The languages of the console: messages, plural forms, numbers and dates, formatted by ICU.

The messages are flat JSON files of ICU MessageFormat patterns in `locales/`: one file per language, and further files
for larger pages (`play.en.json`). A key that is missing, unused, or has other parameters than in English fails a test.

Dates use the readers' calendar (Persian for Persian, Gregorian for the others) in the gateway's time zone. Persian
numbers are written in Persian digits, except inside technical names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import icu

from hubgate.web.console.folders import folders

DEFAULT = "en"
_PERSIAN_DIGITS = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")
_ISOLATE, _POP = "\u2068", "\u2069"
_RELATIVE_UNITS = (
    (86_400.0, icu.URelativeDateTimeUnit.DAY),
    (3600.0, icu.URelativeDateTimeUnit.HOUR),
    (60.0, icu.URelativeDateTimeUnit.MINUTE),
    (1.0, icu.URelativeDateTimeUnit.SECOND),
)


@dataclass(frozen=True, slots=True)
class Language:
    """One language. `code` names its files, `tag` is its name in HTML, `locale` its name in ICU."""

    code: str
    name: str
    """In the language itself."""
    tag: str
    locale: str
    rtl: bool = False
    messages: Mapping[str, str] = field(default_factory=dict, repr=False)
    _formatters: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)
    """ICU's formatters are slow to create, so each is created once."""

    def translate(self, key: str, **values: object) -> str:
        """The message of a key, with numbers formatted for the language.

        In a right-to-left language, text values are isolated, so that a name in Latin letters does not reorder the
        sentence.
        """
        pattern = self.messages[key]
        if not values:
            return pattern
        formatter = self._formatter(key, lambda locale: icu.MessageFormat(pattern, locale))
        text: str = formatter.format(list(values), [self._formattable(value) for value in values.values()])
        return text

    def number(self, value: float, *, digits: int = 0) -> str:
        """A number with group separators, and at most `digits` decimals."""
        return str(self._numbers("decimal", digits).format(value))

    def fixed(self, value: float, digits: int) -> str:
        """A number with exactly `digits` decimals, for a column."""
        return str(self._numbers("fixed", digits).format(value))

    def size(self, count: int) -> str:
        """A number of bytes with a suitable unit."""
        exponent = max((each for each in (10, 20, 30) if count >> each), default=0)
        unit = {0: "B", 10: "KiB", 20: "MiB", 30: "GiB"}[exponent]
        return f"{self.number(count / (1 << exponent), digits=1)}\u00a0{unit}"

    def percent(self, share: float) -> str:
        """A share of 1 as a whole percentage."""
        return str(self._numbers("percent", 0).format(share))

    def digits(self, text: str) -> str:
        """A number as typed, in the language's digits. Forms accept any digits."""
        return text.translate(_PERSIAN_DIGITS) if self.code == "fa" else text

    def date(self, seconds: float) -> str:
        """The date of a time in seconds since the epoch."""
        return str(self._dates(time=False).format(float(seconds)))

    def moment(self, seconds: float) -> str:
        """Date and time of a time in seconds since the epoch."""
        return str(self._dates(time=True).format(float(seconds)))

    def compact(self, value: float) -> str:
        """A number in two or three digits, for the scale of a chart."""
        formatter = self._formatter(
            "compact",
            lambda locale: icu.NumberFormatter.withLocale(locale).notation(icu.Notation.compactShort()),
        )
        return str(formatter.formatDouble(float(value)))

    def duration(self, seconds: float) -> str:
        """A duration in milliseconds, or from one second on in seconds."""
        formatter = self._formatter(
            "duration", lambda locale: icu.MeasureFormat(locale, icu.UMeasureFormatWidth.SHORT)
        )
        if seconds >= 1:
            measure = icu.Measure(round(seconds, 2), icu.MeasureUnit.createSecond())
        else:
            milliseconds = round(seconds * 1000, 0 if seconds >= 0.01 else 1)
            measure = icu.Measure(milliseconds, icu.MeasureUnit.createMillisecond())
        return str(formatter.formatMeasure(measure))

    def point(self, seconds: float, fields: str, *, utc: bool = False) -> str:
        """A time with only these fields (ICU's, such as `MMMd` or `jm`), in the language's order."""

        def create(locale: icu.Locale) -> icu.DateFormat:
            pattern = icu.DateTimePatternGenerator.createInstance(locale).getBestPattern(fields)
            formatter = icu.SimpleDateFormat(pattern, locale)
            if utc:
                formatter.setTimeZone(icu.TimeZone.getGMT())
            return formatter

        return str(self._formatter((fields, utc), create).format(float(seconds)))

    def ago(self, seconds: float) -> str:
        """How long ago something was, roughly; negative seconds are in the future."""
        formatter = self._formatter("ago", icu.RelativeDateTimeFormatter)
        for size, unit in _RELATIVE_UNITS:
            if abs(seconds) >= size:
                return str(formatter.formatNumeric(float(-int(seconds / size)), unit))
        return str(formatter.format(icu.UDateDirection.PLAIN, icu.UDateAbsoluteUnit.NOW))

    def _formatter(self, key: object, create: Callable[[icu.Locale], Any]) -> Any:
        formatter = self._formatters.get(key)
        if formatter is None:
            formatter = self._formatters[key] = create(icu.Locale(self.locale))
        return formatter

    def _formattable(self, value: object) -> icu.Formattable:
        if isinstance(value, str):
            return icu.Formattable(f"{_ISOLATE}{value}{_POP}" if self.rtl else value)
        return icu.Formattable(value)

    def _numbers(self, kind: str, digits: int) -> Any:
        def create(locale: icu.Locale) -> icu.NumberFormat:
            if kind == "percent":
                formatter = icu.NumberFormat.createPercentInstance(locale)
            else:
                formatter = icu.NumberFormat.createInstance(locale)
            formatter.setMaximumFractionDigits(digits)
            if kind == "fixed":
                formatter.setMinimumFractionDigits(digits)
            return formatter

        return self._formatter((kind, digits), create)

    def _dates(self, *, time: bool) -> Any:
        medium, short = icu.DateFormat.kMedium, icu.DateFormat.kShort

        def create(locale: icu.Locale) -> icu.DateFormat:
            if time:
                return icu.DateFormat.createDateTimeInstance(medium, short, locale)
            return icu.DateFormat.createDateInstance(medium, locale)

        return self._formatter(("date", time), create)


def languages() -> Mapping[str, Language]:
    """All languages by their codes."""
    return _languages(folders())


@cache
def _languages(folders: Sequence[Path]) -> Mapping[str, Language]:
    known = (
        Language("en", "English", "en", "en"),
        Language("zh", "中文", "zh-Hans", "zh_Hans"),
        Language("ja", "日本語", "ja", "ja"),
        Language("fa", "فارسی", "fa", "fa@calendar=persian", rtl=True),
    )
    return {
        one.code: Language(one.code, one.name, one.tag, one.locale, one.rtl, _read(one.code, folders))
        for one in known
    }


def choose(chosen: str | None, accepted: str) -> Language:
    """The language chosen in the console, else the first of the browser's that the console has.

    Args:
        chosen: the code in the cookie, if any.
        accepted: the `Accept-Language` header. Browsers order it by weight, so the weights are ignored.
    """
    known = languages()
    wanted = [chosen or "", *(part.partition(";")[0].strip()[:2].lower() for part in accepted.split(","))]
    return next((known[code] for code in wanted if code in known), known[DEFAULT])


def _read(code: str, folders: Sequence[Path]) -> Mapping[str, str]:
    """The messages of all files of a language, from files such as `en.json` and `play.en.json`."""
    return {
        key: message
        for folder in folders
        for path in sorted((folder / "locales").glob(f"*{code}.json"))
        for key, message in json.loads(path.read_text("utf-8")).items()
    }
