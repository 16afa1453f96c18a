"""Reference implementation of Elasticsearch's chunking: the specification step by step, unoptimized.

Everything is recounted from the start each time, so this is quadratic; it shares no code with hubgate but ICU itself.
Texts are lists of UTF-16 units; chunks are (start, end) in units.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import icu

Spans = list[tuple[int, int]]


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


def part(text: str, start: int, end: int) -> str:
    return utf16(text)[2 * start : 2 * end].decode("utf-16-le", "surrogatepass")


def length(text: str) -> int:
    return len(utf16(text)) // 2


class Segments:
    """B and W of the specification."""

    def __init__(self, text: str) -> None:
        self.length = length(text)
        words = icu.BreakIterator.createWordInstance(icu.Locale.getRoot())
        words.setText(icu.UnicodeString(text))
        self.bounds, self.word = [0], [False]
        while (bound := words.nextBoundary()) != icu.BreakIterator.DONE:
            self.bounds.append(bound)
            self.word.append(words.getRuleStatus() != 0)

    def previous(self, offset: int) -> int:
        """Prev(p): the largest boundary strictly below, or 0."""
        return max((bound for bound in self.bounds if bound < offset), default=0)

    def count(self, start: int, end: int) -> int:
        first = self.previous(start)
        return sum(word and first <= bound <= end for bound, word in zip(self.bounds, self.word, strict=True))

    def skip(self, start: int, words: int) -> int:
        at = self.bounds.index(self.previous(start))
        counted = 0
        while counted < words and at < len(self.bounds):
            counted += self.word[at]
            at += 1
        return self.bounds[at] if at < len(self.bounds) else self.length


def sentence_ends(text: str) -> list[int]:
    sentences = icu.BreakIterator.createSentenceInstance(icu.Locale.getRoot())
    sentences.setText(icu.UnicodeString(text))
    return list(sentences)


def by_word(text: str, size: int, overlap: int) -> tuple[Spans, int]:
    segments = Segments(text)
    spans: Spans = []
    counted = since = start = mark = emitted = 0
    for end, word in zip(segments.bounds, segments.word, strict=True):
        if not word:
            continue
        counted += 1
        since += 1
        if counted >= size:
            spans.append((start, end))
            emitted = counted
            counted = overlap
            if overlap == 0:
                mark = end
            start = mark
        if since == size - overlap:
            mark = end
            since = 0
    if counted > overlap or not spans:
        spans.append((start, segments.length))
        emitted = counted
    return spans, emitted


def by_sentence(text: str, size: int, overlap: int) -> Spans:
    segments = Segments(text)
    spans: Spans = []
    start = end = sentence_start = counted = last_count = last_start = 0
    for sentence_end in sentence_ends(text):
        words = segments.count(sentence_start, sentence_end)
        if counted + words <= size:
            counted += words
        else:
            following = words
            if counted > 0:
                spans.append((start, end))
                if overlap == 0:
                    start = end
                    counted = words
                elif last_count + words > size:
                    drop = max(0, last_count - min(size // 2, 20))
                    start = segments.skip(last_start, drop)
                    counted = following = last_count - drop + words
                else:
                    start = last_start
                    counted = following = last_count + words
            if following > size:
                pieces, emitted = by_word(part(text, start, sentence_end), size, min(20, (size - 1) // 2))
                spans += [(start + first, start + last) for first, last in pieces[:-1]]
                start += pieces[-1][0]
                counted = emitted
        if overlap == 1:
            last_start, last_count = sentence_start, words
        sentence_start = end = sentence_end
    if counted > 0 or not spans:
        spans.append((start, segments.length))
    return spans


def by_recursion(text: str, size: int, separators: list[str]) -> Spans:
    """The separators must mean the same to Python's `re` as to Java."""
    segments = Segments(text)
    spans: Spans = []

    def cut(start: int, end: int, words: int, level: int) -> None:
        if words <= size:
            spans.append((start, end))
        elif level == len(separators):
            spans.extend(
                (start + first, start + last) for first, last in by_sentence(part(text, start, end), size, 0)
            )
        else:
            inside = part(text, start, end)
            matches = [
                start + length(inside[: match.start()])
                for match in re.finditer(separators[level], inside, re.MULTILINE | re.ASCII)
            ]
            cuts = [start, *matches, end]
            joined: list[list[int]] = []
            for first, last in pairwise(cuts):
                if first == last:
                    continue
                count = segments.count(first, last)
                if joined and joined[-1][2] + count <= size:
                    joined[-1][1:] = [last, joined[-1][2] + count]
                else:
                    joined.append([first, last, count])
            for first, last, count in joined:
                cut(first, last, count, level + 1)

    cut(0, segments.length, segments.count(0, segments.length), 0)
    return spans


def expected(text: str, settings: dict[str, Any]) -> Spans:
    size = settings.get("max_chunk_size", 0)
    match settings["strategy"]:
        case "word":
            return by_word(text, size, settings["overlap"])[0]
        case "sentence":
            return by_sentence(text, size, settings["sentence_overlap"])
        case "recursive":
            return by_recursion(text, size, settings["separators"])
    return [(0, length(text))]
