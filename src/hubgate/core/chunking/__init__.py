"""Chunking long texts exactly as Elasticsearch 9.4 does, in time linear in the text.

ICU finds words and sentences, so its version matters: Elasticsearch 9.4 has ICU 77.1. The algorithms were written from
a description of what Elasticsearch does, not from its source, and are tested against offsets that Elasticsearch
returned (tests/data/chunking).
"""

from __future__ import annotations

from typing import NamedTuple

import icu

from hubgate.core.chunking.separators import TimeBudget, check_separators
from hubgate.core.chunking.strategies import by_recursion, by_sentence, by_word
from hubgate.core.chunking.texts import Text
from hubgate.domain.chunking import ChunkingSettings

__all__ = [
    "MAX_SLOTS",
    "Chunk",
    "TimeBudget",
    "check_separators",
    "chunk",
    "count_words",
    "icu_version",
    "icu_warning",
    "merged_slot",
    "split_in_half",
]

REFERENCE_ICU = "77.1"
MAX_SLOTS = 512
"""The maximum number of chunks that Elasticsearch keeps for one input."""


class Chunk(NamedTuple):
    """A part of a text: `text[start:end]`, and the same range in UTF-16 units, as Elasticsearch counts."""

    start: int
    end: int
    start_utf16: int
    end_utf16: int

    def shifted(self, whole: Chunk) -> Chunk:
        """The same part in the text of which `whole` is a chunk."""
        units, points = whole.start_utf16, whole.start
        return Chunk(self.start + points, self.end + points, self.start_utf16 + units, self.end_utf16 + units)


def chunk(text: str, settings: ChunkingSettings, budget: TimeBudget | None = None) -> list[Chunk]:
    """Split a text into one or more chunks, ordered by start. Nothing is trimmed, and chunks may overlap.

    This is CPU work, about 10 MB of text a second: run long texts in a thread. It is safe to call from many threads.

    Args:
        text: the text.
        settings: how to split it.
        budget: for the separators of several texts; by default that of this text.

    Raises:
        InvalidChunking: a separator is not a regular expression, or takes too long on this text.
    """
    whole = Text(text)
    spans = _spans(whole, settings, budget or TimeBudget.for_texts(text))
    return [Chunk(whole.point(start), whole.point(end), start, end) for start, end in spans]


def _spans(text: Text, settings: ChunkingSettings, budget: TimeBudget) -> list[tuple[int, int]]:
    match settings:
        case ChunkingSettings(strategy="sentence", max_chunk_size=int(size), sentence_overlap=int(overlap)):
            return by_sentence(text, size, overlap)
        case ChunkingSettings(strategy="word", max_chunk_size=int(size), overlap=int(overlap)):
            return by_word(text, size, overlap).spans
        case ChunkingSettings(strategy="recursive", max_chunk_size=int(size), separators=tuple(separators)):
            return by_recursion(text, size, separators, budget)
        case _:
            return [(0, text.length)]


def split_in_half(text: str) -> list[Chunk]:
    """Split a text of several characters in two, at the end of a word near the middle if there is one."""
    whole = Text(text)
    middle = whole.unit(len(text) // 2)
    near = (end for end in whole.words.ends if 4 * abs(end - middle) <= whole.length and end < whole.length)
    split = min(near, key=lambda end: abs(end - middle), default=middle)
    point = whole.point(split)
    return [Chunk(0, point, 0, split), Chunk(point, len(text), split, whole.length)]


def count_words(text: str) -> int:
    """The number of words, as chunk sizes count them."""
    return len(Text(text).words.ends)


def icu_version() -> str:
    """The version of ICU, such as `77.1`."""
    return str(icu.ICU_VERSION)


def icu_warning(version: str | None = None) -> str | None:
    """A warning if ICU does not have Elasticsearch's version."""
    version = version or icu_version()
    if version == REFERENCE_ICU:
        return None
    return (
        f"chunks may differ from Elasticsearch 9.4, which uses ICU {REFERENCE_ICU}: "
        f"this gateway has ICU {version}. Install the version of pyicu-wheels in the lock file."
    )


def merged_slot(number: int, total: int) -> int:
    """The slot, below 512, into which Elasticsearch merges chunk `number` (from 0) of `total` of one input."""
    return number if total <= MAX_SLOTS else number * MAX_SLOTS // total
