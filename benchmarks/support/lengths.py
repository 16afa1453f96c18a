"""Texts with realistic lengths: questions, passages, and a mix of both."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WORDS = [
    "the",
    "gateway",
    "keeps",
    "every",
    "token",
    "sealed",
    "at",
    "rest",
    "opens",
    "it",
    "only",
    "for",
    "the",
    "length",
    "of",
    "one",
    "call",
    "and",
    "never",
    "writes",
    "it",
    "to",
    "a",
    "log",
    "when",
    "minute",
    "is",
    "full",
    "callers",
    "wait",
    "their",
    "turn",
    "in",
    "bounded",
    "queue",
    "instead",
    "of",
    "being",
    "told",
    "to",
    "come",
    "back",
    "later",
    "long",
    "report",
    "cut",
    "into",
    "chunks",
    "about",
    "hundred",
    "words",
    "each",
    "repeats",
    "last",
    "sentence",
    "before",
    "she",
    "registered",
    "endpoint",
    "on",
    "monday",
    "set",
    "rate limit",
    "requests",
    "by",
    "noon",
    "pages",
    "had",
    "been",
    "indexed",
    "nobody",
    "noticed",
    "that",
    "model",
    "replaced",
    "overnight",
    "until",
    "search",
    "results",
    "stopped",
    "making",
    "any",
    "sense",
    "harbour",
    "boats",
    "light",
    "market",
    "prices",
    "weather",
    "mountain",
    "river",
    "history",
    "science",
    "music",
]
"""Each is one token of BERT's vocabulary, or two."""


def workloads(seed: int, scale: float = 1.0) -> Mapping[str, Sequence[str]]:
    """By name: `short` (4 to 20 words), `passages` (90 to 180), `mixed` (three of the former for one of the latter)."""
    rng = random.Random(seed)
    short = [_text(rng, 4, 20) for _ in range(int(320 * scale))]
    passages = [_text(rng, 90, 180) for _ in range(int(48 * scale))]
    mixed = [_text(rng, 4, 20) for _ in range(int(108 * scale))] + [
        _text(rng, 90, 180) for _ in range(int(36 * scale))
    ]
    rng.shuffle(mixed)
    return {"short": short, "passages": passages, "mixed": mixed}


def _text(rng: random.Random, least: int, most: int) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(least, most))).capitalize() + "."
