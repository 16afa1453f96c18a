"""Geometry of charts, as pure functions; a template draws it as SVG that stretches to any width.

A chart is `columns * COLUMN` wide and `HEIGHT` high. Its scale starts at 0 and ends at a round number. Time runs from
left to right in every language, as in the monitoring tools that Persian readers know. Bars in tables follow the
direction of reading.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

HEIGHT = 100
COLUMN = 10
_GAP = 2
_STEPS = 4
_ROUND = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_MIN_HEIGHT = 0.5
"""Small values stay visible."""
MILLISECOND = 0.001
"""In seconds: the smallest step of a time scale."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A path for each series, and the numbers of the scale from top to 0."""

    width: int
    paths: Sequence[str]
    scale: Sequence[float]
    dots: Sequence[str] = ()
    """For each series of a line chart: values without a neighbour, which no line connects."""

    @property
    def lines(self) -> Sequence[float]:
        """The positions of the scale's numbers, from the top."""
        return [round(HEIGHT * place / (len(self.scale) - 1), 2) for place in range(len(self.scale))]


def stacked(series: Sequence[Sequence[float]], *, integral: bool, min_step: float = 0.0) -> Chart:
    """Stacked bars, with the first series at the bottom.

    Args:
        series: of equal length.
        integral: whether the values are counts.
        min_step: the smallest step of the scale.
    """
    columns = list(zip(*series, strict=True))
    top = rounded_up(max(min_step * _STEPS, *map(sum, columns), 0), integral=integral)
    parts: list[list[str]] = [[] for _ in series]
    for place, values in enumerate(columns):
        bottom = float(HEIGHT)
        for number, value in enumerate(values):
            if value > 0:
                height = max(_MIN_HEIGHT, value / top * HEIGHT)
                parts[number].append(_bar(place, bottom, height))
                bottom -= height
    return Chart(len(columns) * COLUMN, ["".join(part) for part in parts], _scale(top))


def lines(series: Sequence[Sequence[float | None]], *, min_step: float = 0.0) -> Chart:
    """Lines through the middle of the columns, with gaps where there is no value.

    A value between two gaps becomes a dot, because a line of one point has no length.
    """
    known = [value for values in series for value in values if value is not None]
    top = rounded_up(max(min_step * _STEPS, *known, 0), integral=False)
    drawn = [_line(values, top) for values in series]
    paths, dots = [path for path, _ in drawn], [dot for _, dot in drawn]
    return Chart(len(series[0]) * COLUMN, paths, _scale(top), dots)


def rounded_up(value: float, *, integral: bool) -> float:
    """The smallest end of a scale with round steps that holds the value; the steps of counts are integers."""
    if value <= 0:
        return float(_STEPS)
    step = max(1.0, value / _STEPS) if integral else value / _STEPS
    power = 10.0 ** math.floor(math.log10(step))
    steps = (one * power for one in _ROUND if not integral or (one * power).is_integer())
    return _STEPS * next(one for one in steps if one >= step * (1 - 1e-9))


def _scale(top: float) -> list[float]:
    return [top * step / _STEPS for step in range(_STEPS, -1, -1)]


def _bar(place: int, bottom: float, height: float) -> str:
    left, right = place * COLUMN + _GAP / 2, (place + 1) * COLUMN - _GAP / 2
    return f"M{left:g} {bottom:.2f}V{bottom - height:.2f}H{right:g}V{bottom:.2f}Z"


def _line(values: Sequence[float | None], top: float) -> tuple[str, str]:
    """The paths of the lines and of the dots."""
    path, dots, drawing = [], [], False
    for place, value in enumerate(values):
        if value is None:
            drawing = False
            continue
        x, y = place * COLUMN + COLUMN / 2, HEIGHT - value / top * HEIGHT
        if not drawing and (place + 1 == len(values) or values[place + 1] is None):
            dots.append(f"M{x:g} {y:.2f}h.01")  # not every browser draws a stroke of length 0
            continue
        path.append(f"{'L' if drawing else 'M'}{x:g} {y:.2f}")
        drawing = True
    return "".join(path), "".join(dots)
