"""Outputs of jobs, written as a job writes them, without asking a model."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

from hubgate.features.bulk.engine.rows import Embedded, Layout, Piece, Row
from hubgate.features.bulk.formats.formats import make_sink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DIMENSIONS = 8


def vector(number: int) -> bytes:
    """The vector of a row."""
    chosen = random.Random(number)
    return struct.pack(f"<{DIMENSIONS}f", *(chosen.uniform(-1, 1) for _ in range(DIMENSIONS)))


def write_output(path: Path, count: int, title: Callable[[int], str] = "title {}".format) -> Path:
    """Write `count` rows with a kept field `title`."""
    layout = Layout(DIMENSIONS, ids="text", kept={"title": None})
    rows = [Row(n, f"r{n}", "text", (title(n),)) for n in range(count)]
    sink = make_sink(path, layout)
    encoded = sink.encode(Embedded(rows, [Piece(vector=vector(n)) for n in range(count)]))
    with path.open("wb") as file:
        sink.write(file, [bytes(encoded)])
    return path
