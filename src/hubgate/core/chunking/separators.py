"""Finding separators in a text, within a time limit.

A separator is a regular expression of the operator, and some of those never end on some texts. A search that takes
longer than a moment lets other threads run, and one that exceeds the time budget of the text is cancelled.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import NamedTuple

import regex

from hubgate.core.chunking.java_regex import NotARegex, compile_java
from hubgate.domain.chunking import SEPARATOR_GROUPS, ChunkingSettings, InvalidChunking
from hubgate.domain.ports import Clock

_SECONDS = 1.0
_SECONDS_PER_CHARACTER = 1e-6
_MAX_BLOCKING_SECONDS = 0.05
"""For which a search may hold the interpreter lock. Releasing it costs a wait at every match, so a quick search does not."""

_UNDERLINED = r"\n(?!\Z)(?![ \t\x0b\f]*+(?:[{ends}]|\Z))[^{ends}]*+\n{line}++\n"
_LINEAR = {
    given: regex.compile(_UNDERLINED.format(ends=r"\n\r\x85\u2028\u2029", line=line))
    for given, line in zip(SEPARATOR_GROUPS["markdown"][-2:], "-=", strict=True)
}
"""The two separators of the markdown group that backtrack, rewritten so that they do not: on a run of empty lines
Elasticsearch's own take quadratic time."""


class Separator(NamedTuple):
    """A separator as entered, and compiled."""

    given: str
    pattern: regex.Pattern[str]


@lru_cache(maxsize=256)
def separator(given: str) -> Separator:
    """Compile a separator.

    Raises:
        InvalidChunking: it is not a valid regular expression.
    """
    try:
        return Separator(given, _LINEAR.get(given) or compile_java(given))
    except NotARegex as error:
        raise InvalidChunking(
            (f"[chunking_settings] Invalid value [{_shown(given)}]. [separators]: {error}",),
            remedy="A separator is a regular expression in Java's syntax.",
        ) from error


def check_separators(settings: ChunkingSettings) -> None:
    """Check every separator, before the settings are stored.

    Raises:
        InvalidChunking: names all that are invalid.
    """
    problems: list[str] = []
    remedy = ""
    for given in settings.separators or ():
        try:
            separator(given)
        except InvalidChunking as error:
            problems += error.problems
            remedy = error.remedy
    if problems:
        raise InvalidChunking(tuple(problems), remedy=remedy)


class TimeBudget:
    """The time that all searches in one or several texts may take together."""

    def __init__(self, seconds: float, clock: Clock = time.monotonic) -> None:
        self._left = seconds
        self._clock = clock

    @classmethod
    def for_texts(cls, *texts: str) -> TimeBudget:
        """The budget grows with the length of the texts, not with their number."""
        return cls(_SECONDS + _SECONDS_PER_CHARACTER * sum(map(len, texts)))

    def starts(self, separator: Separator, content: str) -> list[int]:
        """The code points at which the separator matches, in order.

        Raises:
            InvalidChunking: the budget is exceeded.
        """
        started = self._clock()
        try:
            return _starts(separator.pattern, content, self._left)
        except TimeoutError:
            raise InvalidChunking(
                (
                    f"The separator [{_shown(separator.given)}] takes too long on a text of {len(content)} characters.",
                ),
                remedy="Avoid nested or adjacent repeats, such as (a+)+ or .*.*",
            ) from None
        finally:
            self._left -= self._clock() - started


def _starts(pattern: regex.Pattern[str], content: str, seconds: float) -> list[int]:
    for limit, concurrent in ((min(_MAX_BLOCKING_SECONDS, seconds), False), (seconds, True)):
        if limit <= 0:
            break
        try:
            return [
                match.start() for match in pattern.finditer(content, timeout=limit, concurrent=concurrent)
            ]
        except TimeoutError:
            continue
    raise TimeoutError


def _shown(separator: str) -> str:
    return separator if len(separator) <= 100 else f"{separator[:100]}…"
