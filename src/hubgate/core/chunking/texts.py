"""A text as ICU processes it: UTF-16 units, with the boundaries of words and sentences.

All offsets are in UTF-16 units, unless they are called code points.
"""

from __future__ import annotations

import re
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import compress, islice, tee

import icu

_BATCH = 1024
"""Boundaries read at once. Within a batch no Python code runs, and so no other thread."""
_BEYOND_BMP = re.compile("[\U00010000-\U0010ffff]")
_NO_STATUS = -1
_NO_TEXT = icu.UnicodeString("")


class _Iterators(threading.local):
    """ICU's break iterators, a pair for each thread because they hold a position."""

    def __init__(self) -> None:
        self.words = icu.BreakIterator.createWordInstance(icu.Locale.getRoot())
        self.sentences = icu.BreakIterator.createSentenceInstance(icu.Locale.getRoot())


_ITERATORS = _Iterators()


class Text:
    """A text, with offsets in code points and in UTF-16 units."""

    def __init__(self, content: str) -> None:
        self.content = content
        self.units = icu.UnicodeString(content)
        self.length = len(self.units)
        # Where each character of two units starts.
        self._pair_points = array("i")
        self._pair_units = array("i")
        if self.length != len(content):
            points = [match.start() for match in _BEYOND_BMP.finditer(content)]
            self._pair_points.fromlist(points)
            self._pair_units.fromlist([point + before for before, point in enumerate(points)])

    def point(self, unit: int) -> int:
        """The code point at a unit, which may be its second half."""
        return unit - bisect_left(self._pair_units, unit)

    def unit(self, point: int) -> int:
        """The unit at which a code point starts."""
        return point + bisect_left(self._pair_points, point)

    def part(self, start: int, end: int) -> Text:
        """A part of the text as a text of its own, without context."""
        if (start, end) == (0, self.length):
            return self
        return Text(self.content[self.point(start) : self.point(end)])

    @cached_property
    def words(self) -> Words:
        return Words(self)

    def sentence_ends(self) -> Sequence[int]:
        sentences = _ITERATORS.sentences
        sentences.setText(self.units)
        ends = array("i")
        while batch := list(islice(sentences, _BATCH)):
            ends.fromlist(batch)
        sentences.setText(_NO_TEXT)
        return ends


class Words:
    """The word boundaries of a text, and Elasticsearch's way of counting words between two offsets.

    `bounds` are 0 and the end of every segment; `ends` only those of words, not of spaces or punctuation.
    """

    __slots__ = ("bounds", "ends")

    def __init__(self, text: Text) -> None:
        self.bounds, self.ends = _boundaries(text)

    def counts(self, cuts: Sequence[int]) -> list[int]:
        """How many words end between each two neighbouring cuts, which must be sorted.

        Elasticsearch starts at the boundary *before* a cut, so a word that ends there counts twice: for example the last
        word of a line, if the line end after it is one segment.
        """
        bounds, ends = self.bounds, self.ends
        all_bounds, all_ends = len(bounds), len(ends)
        counts = []
        start = cuts[0]
        bound = bisect_left(bounds, start)
        seen = bisect_right(ends, start)
        for end in cuts[1:]:
            first = seen
            if first and ends[first - 1] == start:
                first -= 1
            if first and ends[first - 1] == bounds[bound - 1]:
                first -= 1
            # There are no more boundaries than units: only those are searched. Calling min() would cost a quarter.
            last = seen + end - start
            seen = bisect_right(ends, end, seen, last if last < all_ends else all_ends)  # noqa: FURB136
            counts.append(seen - first)
            last = bound + end - start
            bound = bisect_left(bounds, end, bound, last if last < all_bounds else all_bounds)  # noqa: FURB136
            start = end
        return counts

    def skip(self, start: int, words: int) -> int:
        """The boundary after `words` words, counted as in `counts`; for 0 the one before `start`.

        At least one more word must follow.
        """
        before = self.bounds[max(bisect_left(self.bounds, start) - 1, 0)]
        if words == 0:
            return before
        last = self.ends[bisect_left(self.ends, before) + words - 1]
        return self.bounds[bisect_right(self.bounds, last)]


def _boundaries(text: Text) -> tuple[Sequence[int], Sequence[int]]:
    """All word boundaries from 0 on, and those of them that end a word.

    The rule status of a segment must be read before the iterator advances. `compress` reads a boundary and then its
    status, and `tee` keeps all boundaries: so no byte code runs for each boundary, which halves the time.
    """
    words = _ITERATORS.words
    words.setText(text.units)
    statuses: Iterator[int] = iter(words.getRuleStatus, _NO_STATUS)
    kept, seen = tee(words)
    bounds, ends = array("i", [0]), array("i")
    while True:
        ends.fromlist(list(compress(islice(seen, _BATCH), statuses)))
        batch = list(islice(kept, _BATCH))
        if not batch:
            break
        bounds.fromlist(batch)
    words.setText(_NO_TEXT)
    return bounds, ends
