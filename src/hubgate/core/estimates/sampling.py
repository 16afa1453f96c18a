"""Totals over many texts, from a sample of them.

Texts are sorted into classes by size, so that the largest text of a class is less than twice as large as the smallest,
and each class is sampled on its own (stratified sampling). A few huge texts among many small ones are then measured,
instead of deciding the result by chance. The sizes of all texts are known, so a total that depends on the size, such as
tokens, is estimated by regression on it, and its error is what the regression leaves: W. G. Cochran, *Sampling
Techniques*, chapters 5 to 7.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

SAMPLE_TEXTS = 2000
SAMPLE_BYTES = 8_000_000
"""Of all sampled texts together, about: tokenizers read a few megabytes a second."""
_MIN_PER_CLASS = 10
_MIN_OF_LARGE = 2
"""Of a class whose texts are too large to measure `_MIN_PER_CLASS` of them."""
_NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True)
class Total:
    """An estimated total. With 95 % probability, the exact one differs by at most `error`; 0: it is exact."""

    value: float
    error: float


class SizeClasses:
    """The sizes of all texts, by class. Needs no memory for a text."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._bytes: dict[int, int] = {}

    def add(self, size: int) -> None:
        number = size.bit_length()
        self._counts[number] = self._counts.get(number, 0) + 1
        self._bytes[number] = self._bytes.get(number, 0) + size

    @property
    def texts(self) -> int:
        return sum(self._counts.values())

    @property
    def bytes(self) -> int:
        return sum(self._bytes.values())

    def sample(self, texts: int = SAMPLE_TEXTS, size: int = SAMPLE_BYTES) -> Sample:
        """Choose texts at random, the same ones each time.

        Args:
            texts: how many, about.
            size: of all together in bytes, about.
        """
        chosen = random.Random(0)  # noqa: S311 - not a secret
        wanted = self._wanted(texts, size)
        return Sample(
            {
                number: _Class(count, self._bytes[number], chosen.sample(range(count), wanted[number]))
                for number, count in self._counts.items()
            }
        )

    def _wanted(self, texts: int, size: int) -> dict[int, int]:
        """How many of each class: the variance of a total grows with the bytes of the class."""
        if texts >= self.texts and size >= self.bytes:
            return dict(self._counts)
        shares = {
            number: min(count, max(_MIN_PER_CLASS, texts * self._bytes[number] // max(1, self.bytes)))
            for number, count in self._counts.items()
        }
        cost = sum(share * self._bytes[number] / self._counts[number] for number, share in shares.items())
        scale = min(1.0, size / max(1.0, cost))
        return {
            number: min(self._counts[number], max(_MIN_OF_LARGE, int(share * scale)))
            for number, share in shares.items()
        }


class _Class:
    """The sample of one class, and what was measured of it."""

    def __init__(self, texts: int, size: int, chosen: Sequence[int]) -> None:
        self.texts = texts
        self.bytes = size
        self.chosen = frozenset(chosen)
        self.seen = 0
        self.sizes: list[int] = []
        self.measures: list[Sequence[float]] = []

    def size_total(self, column: int) -> tuple[float, float]:
        """Value and variance of the total of a measure that depends on the size: by regression, or by their ratio."""
        sampled = len(self.sizes)
        if not sampled:
            return 0.0, 0.0
        values = [measured[column] for measured in self.measures]
        if sampled < _MIN_PER_CLASS:
            slope, start, freedom = sum(values) / max(1, sum(self.sizes)), 0.0, 1
        else:
            slope, start = _line(self.sizes, values)
            freedom = 2
        squares = sum((value - start - slope * x) ** 2 for value, x in zip(values, self.sizes, strict=True))
        variance = squares / max(1, sampled - freedom)
        return (
            self.texts * start + slope * self.bytes,
            self.texts * (self.texts - sampled) * variance / sampled,
        )

    def share_total(self, column: int) -> tuple[float, float]:
        """The same of a share from 0 to 1."""
        sampled = len(self.sizes)
        if not sampled:
            return 0.0, 0.0
        share = sum(measured[column] for measured in self.measures) / sampled
        variance = share * (1 - share) / max(1, sampled - 1)
        return self.texts * share, self.texts * (self.texts - sampled) * variance


class Sample:
    """Texts to measure. Ask `takes` for each text in order, then `add` the measures of those taken, in that order."""

    def __init__(self, classes: dict[int, _Class]) -> None:
        self._classes = classes
        self.size = sum(len(one.chosen) for one in classes.values())

    def takes(self, size: int) -> bool:
        """Whether the next text, which has this size, is in the sample."""
        one = self._classes.get(size.bit_length())
        if one is None:
            return False
        one.seen += 1
        return one.seen - 1 in one.chosen

    def add(self, size: int, measures: Sequence[float]) -> None:
        """Add what was measured of a text that was taken: the same number of measures for each text."""
        one = self._classes[size.bit_length()]
        one.sizes.append(size)
        one.measures.append(measures)

    def size_total(self, column: int) -> Total:
        """The total of a measure that depends on the size of a text, such as tokens."""
        return _sum([one.size_total(column) for one in self._classes.values()])

    def share_total(self, column: int) -> Total:
        """The total of a share of a text, or of whether something is true of it: 0 to 1.

        If it is true of no sampled text or of all, its error is that of the rule of three.
        """
        total = _sum([one.share_total(column) for one in self._classes.values()])
        texts = sum(one.texts for one in self._classes.values())
        if total.error or self.size == texts:
            return total
        return Total(total.value, min(texts, 3 * texts / self.size))


def _line(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Slope and start of the line with the least squares."""
    x, y = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    spread = math.fsum((one - x) ** 2 for one in xs)
    slope = math.fsum((one - x) * (other - y) for one, other in zip(xs, ys, strict=True)) / (spread or 1.0)
    return slope, y - slope * x


def _sum(parts: Sequence[tuple[float, float]]) -> Total:
    value = math.fsum(value for value, _ in parts)
    return Total(value, _NORMAL_95 * math.sqrt(math.fsum(variance for _, variance in parts)))
