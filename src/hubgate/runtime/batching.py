"""Which waiting texts run together next: of similar length, under a budget, callers in turn.

A batch is padded to its longest text, so mixed lengths waste most of the work (80–90 % measured on first-come
batches), and similar ones nearly none.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PADDED_TOKENS = 1024
"""The most a batch holds, padding included; a longer text runs alone. Up to 4096 measured no faster, and a lone text
waits for the batch before it."""
STEP = 8
"""Lengths are padded to multiples of this: OpenVINO keeps memory for each shape it has seen. 16 costs short texts 30 %."""
SIMILAR = 0.8
"""The shortest text of a batch has at least this part of the longest one's tokens."""


@dataclass(frozen=True, slots=True)
class Place:
    """One text of one call."""

    call: int
    index: int


def padded(longest: int) -> int:
    """The length of a batch whose longest text has so many tokens; never 0."""
    return max(1, -(-longest // STEP)) * STEP


class Waiting:
    """The texts that wait, by call. The next batch is chosen only when the model is free, so that late texts join it."""

    def __init__(self, *, padded_tokens: int = PADDED_TOKENS, similar: float = SIMILAR) -> None:
        self._padded_tokens = padded_tokens
        self._similar = similar
        self._calls: dict[int, list[tuple[int, int]]] = {}
        """For each call, the one whose turn is next first, its (tokens, index), the longest last."""
        self._served: int | None = None

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, call: int, lengths: Sequence[int]) -> None:
        """Let the texts of a call wait, given the number of tokens of each."""
        if lengths:
            self._calls[call] = sorted((length, index) for index, length in enumerate(lengths))

    def remove(self, call: int) -> None:
        """Forget what still waits of a call."""
        self._calls.pop(call, None)

    def take(self) -> list[Place]:
        """Take the next batch, the longest text first.

        The call whose turn it is gives its longest text, and with it the length of the batch. Similar texts join it,
        and those that would be padded alike without it; its own first, then those of the other calls in their turn. So
        each of n waiting calls has a text in every nth batch at least, whatever the others hold. Empty if nothing waits.
        """
        if not self._calls:
            return []
        if self._served in self._calls:  # only now, so that calls that came meanwhile stand before it
            self._calls[self._served] = self._calls.pop(self._served)
        call, texts = next(iter(self._calls.items()))
        longest = texts[-1][0]
        most = padded(longest)
        least = min(self._similar * longest, most - STEP + 1)
        room = max(1, self._padded_tokens // most)
        batch: list[tuple[int, Place]] = []
        for other, lengths in list(self._calls.items()):
            if len(batch) == room:
                break
            stop = bisect_left(lengths, (most + 1,))
            start = max(bisect_left(lengths, (least,)), stop - (room - len(batch)))
            batch += [(length, Place(other, index)) for length, index in lengths[start:stop]]
            del lengths[start:stop]
            if not lengths:
                del self._calls[other]
        self._served = call
        return [place for _, place in sorted(batch, key=lambda entry: -entry[0])]
