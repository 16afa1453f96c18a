"""How alike vectors are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from hubgate.core.vectors import floats


def cosines(source: bytes, others: Sequence[bytes]) -> list[float]:
    """The cosine of the angle between one f32 vector and each of others; 0 where a vector is all zeros."""
    numbers = floats(source)
    length = math.hypot(*numbers)
    return [_cosine(numbers, length, floats(other)) for other in others]


def _cosine(one: Sequence[float], length: float, other: Sequence[float]) -> float:
    lengths = length * math.hypot(*other)
    return max(-1.0, min(1.0, sum(map(mul, one, other)) / lengths)) if lengths else 0.0
