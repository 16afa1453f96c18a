"""Geometry of charts, as pure functions: what a template draws as SVG that stretches to any width.

Each chart is a plane of `columns * COLUMN` by `HEIGHT`, whose scale begins at 0 and ends at a round number. Time goes
from left to right in every language: so Persian readers know it from the monitors of exchanges and servers, and so one
picture shows two colleagues the same slope. Bars without time, as in lists, grow in the direction of reading.
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
_LEAST = 0.5
"""Of the height: what is there at all can be seen."""
MILLISECOND = 0.001
"""Seconds; a step of a scale of time is no smaller."""


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn: a path for each series, and the numbers of the scale, from the top to 0."""

    width: int
    paths: Sequence[str]
    scale: Sequence[float]
    dots: Sequence[str] = ()
    """Of lines: for each series, the values without a neighbour, which no line goes through."""

    @property
    def lines(self) -> Sequence[float]:
        """Where the numbers of the scale are, from the top."""
        return [round(HEIGHT * place / (len(self.scale) - 1), 2) for place in range(len(self.scale))]


def stacked(series: Sequence[Sequence[float]], *, counted: bool, least: float = 0.0) -> Chart:
    """Bars, the first series at the bottom and each further one on top of it.

    Args:
        series: of equal length.
        counted: whether they are of things that have no halves.
        least: the smallest step of the scale.
    """
    columns = list(zip(*series, strict=True))
    top = rounded_up(max(least * _STEPS, *map(sum, columns), 0), counted=counted)
    parts: list[list[str]] = [[] for _ in series]
    for place, values in enumerate(columns):
        bottom = float(HEIGHT)
        for number, value in enumerate(values):
            if value > 0:
                height = max(_LEAST, value / top * HEIGHT)
                parts[number].append(_bar(place, bottom, height))
                bottom -= height
    return Chart(len(columns) * COLUMN, ["".join(part) for part in parts], _scale(top))


def lines(series: Sequence[Sequence[float | None]], *, least: float = 0.0) -> Chart:
    """Lines through the middle of each column, broken where there is no value; `least` as of `stacked`.

    A value between two gaps is a dot: as a line it would have no length.
    """
    known = [value for values in series for value in values if value is not None]
    top = rounded_up(max(least * _STEPS, *known, 0), counted=False)
    drawn = [_line(values, top) for values in series]
    paths, dots = [path for path, _ in drawn], [dot for _, dot in drawn]
    return Chart(len(series[0]) * COLUMN, paths, _scale(top), dots)


def rounded_up(value: float, *, counted: bool) -> float:
    """The least number that a scale of some steps can end at, each of them round, and whole where things are counted."""
    if value <= 0:
        return float(_STEPS)
    step = max(1.0, value / _STEPS) if counted else value / _STEPS
    power = 10.0 ** math.floor(math.log10(step))
    steps = (one * power for one in _ROUND if not counted or (one * power).is_integer())
    return _STEPS * next(one for one in steps if one >= step * (1 - 1e-9))


def _scale(top: float) -> list[float]:
    return [top * step / _STEPS for step in range(_STEPS, -1, -1)]


def _bar(place: int, bottom: float, height: float) -> str:
    left, right = place * COLUMN + _GAP / 2, (place + 1) * COLUMN - _GAP / 2
    return f"M{left:g} {bottom:.2f}V{bottom - height:.2f}H{right:g}V{bottom:.2f}Z"


def _line(values: Sequence[float | None], top: float) -> tuple[str, str]:
    """The path of the lines, and that of the dots."""
    path, dots, drawing = [], [], False
    for place, value in enumerate(values):
        if value is None:
            drawing = False
            continue
        x, y = place * COLUMN + COLUMN / 2, HEIGHT - value / top * HEIGHT
        if not drawing and (place + 1 == len(values) or values[place + 1] is None):
            dots.append(f"M{x:g} {y:.2f}h.01")  # a stroke without any length is not drawn by every browser
            continue
        path.append(f"{'L' if drawing else 'M'}{x:g} {y:.2f}")
        drawing = True
    return "".join(path), "".join(dots)
