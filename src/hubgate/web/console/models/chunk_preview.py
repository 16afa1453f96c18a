"""A text with its chunks marked: where chunks overlap, the text stands once and is of both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from hubgate.core.chunking import Chunk


class Piece(NamedTuple):
    """A stretch of the text: the chunks that it is in, by their numbers from 1, and those that begin with it."""

    text: str
    chunks: tuple[int, ...]
    begins: tuple[int, ...]


def marked(text: str, chunks: Sequence[Chunk]) -> list[Piece]:
    """The whole text in pieces, cut wherever a chunk begins or ends."""
    cuts = sorted({0, len(text), *(edge for piece in chunks for edge in (piece.start, piece.end))})
    starting: dict[int, list[int]] = {}
    for number, one in enumerate(chunks, 1):
        starting.setdefault(one.start, []).append(number)
    pieces: list[Piece] = []
    inside: tuple[int, ...] = ()
    for start, end in pairwise(cuts):
        inside = tuple(n for n in (*inside, *starting.get(start, ())) if chunks[n - 1].end > start)
        begins = tuple(n for n in inside if chunks[n - 1].start == start)
        pieces.append(Piece(text[start:end], inside, begins))
    return pieces
