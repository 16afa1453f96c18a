"""Long texts are cut into chunks exactly as Elasticsearch 9.4 cuts them, in time linear in the text.

Words and sentences come from ICU, so its version is part of what a chunk is: Elasticsearch 9.4 brings ICU 77.1.
The algorithms were written from a description of what Elasticsearch does, not from its source, and are held to
offsets that Elasticsearch itself gave (tests/data/chunking).
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
"""The most chunks that Elasticsearch keeps of one input."""


class Chunk(NamedTuple):
    """One piece of a text: `text[start:end]`, and the same range counted in UTF-16 units as Elasticsearch does."""

    start: int
    end: int
    start_utf16: int
    end_utf16: int

    def shifted(self, whole: Chunk) -> Chunk:
        """The same piece, where `whole` is the chunk that was cut."""
        units, points = whole.start_utf16, whole.start
        return Chunk(self.start + points, self.end + points, self.start_utf16 + units, self.end_utf16 + units)


def chunk(text: str, settings: ChunkingSettings, patience: TimeBudget | None = None) -> list[Chunk]:
    """Cut a text. At least one chunk, in the order of their starts; nothing is trimmed, and chunks may overlap.

    CPU work, 10 MB of text a second or so: long texts belong into a thread, and any number of threads may call.

    Args:
        text: what is cut.
        settings: how.
        patience: for the separators of several texts that belong together; of its own otherwise.

    Raises:
        InvalidChunking: a separator is no regular expression, or takes too long on this text.
    """
    whole = Text(text)
    spans = _spans(whole, settings, patience or TimeBudget.for_texts(text))
    return [Chunk(whole.point(start), whole.point(end), start, end) for start, end in spans]


def _spans(text: Text, settings: ChunkingSettings, patience: TimeBudget) -> list[tuple[int, int]]:
    match settings:
        case ChunkingSettings(strategy="sentence", max_chunk_size=int(size), sentence_overlap=int(overlap)):
            return by_sentence(text, size, overlap)
        case ChunkingSettings(strategy="word", max_chunk_size=int(size), overlap=int(overlap)):
            return by_word(text, size, overlap).spans
        case ChunkingSettings(strategy="recursive", max_chunk_size=int(size), separators=tuple(separators)):
            return by_recursion(text, size, separators, patience)
        case _:
            return [(0, text.length)]


def split_in_half(text: str) -> list[Chunk]:
    """A text of several characters in two: near its middle at the end of a word, if one ends there."""
    whole = Text(text)
    middle = whole.unit(len(text) // 2)
    near = (end for end in whole.words.ends if 4 * abs(end - middle) <= whole.length and end < whole.length)
    split = min(near, key=lambda end: abs(end - middle), default=middle)
    point = whole.point(split)
    return [Chunk(0, point, 0, split), Chunk(point, len(text), split, whole.length)]


def count_words(text: str) -> int:
    """How many words a text has, as chunk sizes count them."""
    return len(Text(text).words.ends)


def icu_version() -> str:
    """The version of ICU that cuts the texts, such as `77.1`."""
    return str(icu.ICU_VERSION)


def icu_warning(version: str | None = None) -> str | None:
    """What to tell the operator where ICU is not Elasticsearch's; `None` where it is."""
    version = version or icu_version()
    if version == REFERENCE_ICU:
        return None
    return (
        f"chunks may differ from Elasticsearch 9.4, which cuts with ICU {REFERENCE_ICU}: "
        f"this gate has ICU {version}. Install the pyicu-wheels package that the lock file names."
    )


def merged_slot(number: int, total: int) -> int:
    """The slot, below 512, into which Elasticsearch merges chunk `number` (from 0) of `total` of one input."""
    return number if total <= MAX_SLOTS else number * MAX_SLOTS // total
