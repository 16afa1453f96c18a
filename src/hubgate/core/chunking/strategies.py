"""Elasticsearch's three chunking strategies: by words, by sentences, and recursively by separators.

Every span is (start, end) in UTF-16 units. Sizes and overlaps are in words. What looks odd here is odd in Elasticsearch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from hubgate.core.chunking.separators import TimeBudget, separator
from hubgate.core.chunking.texts import Text, Words

Span: TypeAlias = tuple[int, int]

_MAX_REPEATED_WORDS = 20


class WordChunks(NamedTuple):
    """Spans, and how many words the last of them holds."""

    spans: list[Span]
    last_count: int


def by_word(text: Text, size: int, overlap: int) -> WordChunks:
    """Split after every word that fills a chunk; `overlap` is at most half of `size`.

    Spaces and punctuation belong to the next chunk; those after the last full chunk are dropped.
    """
    ends = text.words.ends
    step = size - overlap
    starts = [0, *ends[step - 1 :: step]]
    spans = list(zip(starts, ends[size - 1 :: step], strict=False))
    if not spans:
        return WordChunks([(0, text.length)], len(ends))
    words_left = len(ends) - size - (len(spans) - 1) * step
    if words_left == 0:
        return WordChunks(spans, size)
    return WordChunks([*spans, (starts[len(spans)], text.length)], overlap + words_left)


def by_sentence(text: Text, size: int, overlap: int) -> list[Span]:
    """Join whole sentences up to `size` words; `overlap` is 0 or 1 sentence.

    Of a sentence too long to be repeated, the last words are repeated. A chunk that one sentence makes too long is split
    by words, always with an overlap, and the sentences that follow may join its last part.
    """
    words = text.words
    cuts = [0, *text.sentence_ends()]
    spans: list[Span] = []
    start = end = count = 0
    last_sentence = (0, 0)
    for sentence_end, in_sentence in zip(cuts[1:], words.counts(cuts), strict=True):
        if count > 0 and count + in_sentence > size:
            spans.append((start, end))
            start, count = _repeated(words, last_sentence, size, in_sentence) if overlap else (end, 0)
        count += in_sentence
        if count > size:
            pieces = by_word(text.part(start, sentence_end), size, min(_MAX_REPEATED_WORDS, (size - 1) // 2))
            *full, (last_start, _) = _shifted(pieces.spans, start)
            spans += full
            start, count = last_start, pieces.last_count
        last_sentence = (end, in_sentence)
        end = sentence_end
    return [*spans, (start, text.length)]


def _repeated(words: Words, sentence: tuple[int, int], size: int, following: int) -> tuple[int, int]:
    """The start and the words of the repeated part of a sentence (start, words), before one of `following` words."""
    start, count = sentence
    if count + following <= size:
        return start, count
    kept = min(count, size // 2, _MAX_REPEATED_WORDS)
    return words.skip(start, count - kept), kept


def by_recursion(text: Text, size: int, separators: Iterable[str], budget: TimeBudget) -> list[Span]:
    """Split at the first separator, join neighbours while they fit, and continue with the next one where too long.

    Parts that no separator makes small enough are split by sentences. A separator belongs to the part that follows it.
    """
    words = text.words
    cutters = [separator(given) for given in separators]
    spans: list[Span] = []
    waiting = [(0, text.length, len(words.ends), 0)]
    while waiting:
        start, end, count, level = waiting.pop()
        if count <= size:
            spans.append((start, end))
        elif level == len(cutters):
            spans += _shifted(by_sentence(text.part(start, end), size, 0), start)
        else:
            first = text.point(start)
            matches = budget.starts(cutters[level], text.content[first : text.point(end)])
            cuts = sorted({start, *(text.unit(first + match) for match in matches), end})
            waiting += [(*piece, level + 1) for piece in reversed(_joined(words, cuts, size))]
    return spans


def _joined(words: Words, cuts: Sequence[int], size: int) -> list[tuple[int, int, int]]:
    """The parts between cuts as (start, end, words), with neighbours joined while their words fit."""
    joined: list[tuple[int, int, int]] = []
    for (start, end), count in zip(pairwise(cuts), words.counts(cuts), strict=True):
        if joined and joined[-1][2] + count <= size:
            joined[-1] = (joined[-1][0], end, joined[-1][2] + count)
        else:
            joined.append((start, end, count))
    return joined


def _shifted(spans: Iterable[Span], offset: int) -> list[Span]:
    return [(start + offset, end + offset) for start, end in spans]
