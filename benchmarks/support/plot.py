"""Curves as an SVG file: small panels with logarithmic axes, beside each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Curve: TypeAlias = "Sequence[tuple[float, float]]"
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito
_WIDTH, _HEIGHT, _LEFT, _TOP, _ACROSS = 300, 180, 60, 34, 3


def svg(panels: Mapping[str, Mapping[str, Curve]], x_label: str) -> str:
    """Draw panels by title, each with its curves by name. Values must be positive; the same name has the same color."""
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    parts = []
    for number, (title, curves) in enumerate(panels.items()):
        x, y = number % _ACROSS * (_WIDTH + 90), number // _ACROSS * (_HEIGHT + 90)
        parts.append(
            f'<g transform="translate({x + _LEFT},{y + _TOP})">{_panel(title, curves, names, x_label)}</g>'
        )
    bottom = -(-len(panels) // _ACROSS) * (_HEIGHT + 90) + 10
    for number, name in enumerate(names):
        parts.append(
            f'<text x="{_LEFT + number * 150}" y="{bottom}" fill="{_COLORS[number % len(_COLORS)]}">&#9679; {escape(name)}</text>'
        )
    size = f'width="{_ACROSS * (_WIDTH + 90)}" height="{bottom + 20}"'
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'


def _panel(title: str, curves: Mapping[str, Curve], names: Sequence[str], x_label: str) -> str:
    points = [point for curve in curves.values() for point in curve]
    across, up = _Axis([x for x, _ in points], _WIDTH), _Axis([y for _, y in points], _HEIGHT)
    parts = [
        f'<text x="0" y="-12" font-weight="bold">{escape(title)}</text>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#888"/>',
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT + 34}" text-anchor="middle">{escape(x_label)}</text>',
    ]
    parts += [
        f'<text x="{across.at(tick):.0f}" y="{_HEIGHT + 16}" text-anchor="middle">{tick:g}</text>'
        for tick in across.ticks()
    ]
    for tick in up.ticks():
        y = _HEIGHT - up.at(tick)
        parts.append(f'<text x="-6" y="{y + 4:.0f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<line x2="{_WIDTH}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
    for name, curve in curves.items():
        color = _COLORS[names.index(name) % len(_COLORS)]
        line = [(across.at(x), _HEIGHT - up.at(y)) for x, y in curve]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in line]
    return "".join(parts)


class _Axis:
    """From one power of ten to another."""

    def __init__(self, values: Sequence[float], length: int) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)
        self._length = length

    def at(self, value: float) -> float:
        return (math.log10(value) - self._low) / (self._high - self._low) * self._length

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self._low, self._high + 1)]
