"""Which waiting texts run together next: of similar length, under a budget, callers in turn.

A batch is padded to its longest text, so mixed lengths waste most of the work (80–90 % measured on first-come
batches), and similar ones nearly none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from hubgate.runtime.order import CallInfo, TurnOrder

MAX_PADDED_TOKENS = 1024
"""The most a batch holds, padding included; a longer text runs alone."""
_LEAST, _A_THREAD = 256, 128
LENGTH_STEP = 8
"""Lengths are padded to multiples of this: OpenVINO keeps memory for each shape it has seen. 16 costs short texts 30 %."""
MIN_LENGTH_RATIO = 0.8
"""The shortest text of a batch has at least this part of the longest one's tokens."""


@dataclass(frozen=True, slots=True)
class TextRef:
    """One text of one call."""

    call: int
    index: int


def padded_length(longest: int) -> int:
    """The length of a batch whose longest text has so many tokens; never 0."""
    return max(1, -(-longest // LENGTH_STEP)) * LENGTH_STEP


def max_batch_tokens(threads: int) -> int:
    """The most tokens of a batch where so many threads run it: as few as keep them busy.

    An interactive call waits for the batch before it. On 2 threads a token takes the same CPU time in batches of 256,
    512 and 1024 tokens; on 8 threads up to 4096 measured no faster than 1024.
    """
    return min(MAX_PADDED_TOKENS, max(_LEAST, _A_THREAD * threads))


class TextQueue:
    """The texts that wait, by call. The next batch is chosen only when the model is free, so that late texts join it."""

    def __init__(self, *, padded_tokens: int = MAX_PADDED_TOKENS, similar: float = MIN_LENGTH_RATIO) -> None:
        self._padded_tokens = padded_tokens
        self._similar = similar
        self._order = TurnOrder()
        self._lengths: dict[int, list[tuple[int, int]]] = {}
        """For each call its (tokens, index), the longest last."""

    def __bool__(self) -> bool:
        return bool(self._lengths)

    def add(self, asked: CallInfo, lengths: Sequence[int]) -> None:
        """Let the texts of a call wait, given the number of tokens of each."""
        if lengths:
            self._lengths[asked.call] = sorted((length, index) for index, length in enumerate(lengths))
            self._order.add(asked)

    def remove(self, call: int) -> None:
        """Forget what still waits of a call."""
        self._lengths.pop(call, None)
        self._order.remove(call)

    def take(self) -> list[TextRef]:
        """Take the next batch, the longest text first.

        The call whose turn it is gives its longest text, and with it the length of the batch. Similar texts join it,
        and those that would be padded alike without it; its own first, then those of the other calls of its class: a
        bulk text in an interactive batch would make it slower. Empty if nothing waits.
        """
        calls = self._order.take_turn()
        if not calls:
            return []
        longest = self._lengths[calls[0]][-1][0]
        most = padded_length(longest)
        least = min(self._similar * longest, most - LENGTH_STEP + 1)
        room = max(1, self._padded_tokens // most)
        batch: list[tuple[int, TextRef]] = []
        for call in calls:
            if len(batch) == room:
                break
            lengths = self._lengths[call]
            stop = bisect_left(lengths, (most + 1,))
            start = max(bisect_left(lengths, (least,)), stop - (room - len(batch)))
            batch += [(length, TextRef(call, index)) for length, index in lengths[start:stop]]
            del lengths[start:stop]
            if not lengths:
                self.remove(call)
        return [place for _, place in sorted(batch, key=lambda entry: -entry[0])]
