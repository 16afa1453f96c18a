"""Which waiting texts run in the next batch: of similar length, within a token budget, callers in turn.

A batch is padded to its longest text, so mixed lengths waste most of the work (80–90 % measured with batches in order of
arrival), and similar lengths nearly none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from hubgate.runtime.order import CallInfo, TurnOrder

MAX_PADDED_TOKENS = 1024
"""Tokens of a batch, padding included. A longer text runs alone."""
_MIN_TOKENS, _TOKENS_PER_THREAD = 256, 128
_LENGTH_STEP = 8
"""Lengths are padded to a multiple, because OpenVINO keeps memory for each shape."""
_SHORT_LENGTH, _SHORT_STEP = 32, 2
"""Up to this length, they are padded to a smaller multiple: short texts run 15 % faster for 15 MB more memory."""
MIN_LENGTH_RATIO = 0.8
"""Of the tokens of a batch's shortest text to those of its longest."""


@dataclass(frozen=True, slots=True)
class TextRef:
    """One text of one call."""

    call: int
    index: int


def padded_length(longest: int) -> int:
    """The padded length of a batch, never 0. `longest` is the tokens of its longest text."""
    step = _SHORT_STEP if longest <= _SHORT_LENGTH else _LENGTH_STEP
    return max(1, -(-longest // step)) * step


def max_batch_tokens(threads: int) -> int:
    """The maximum tokens of a batch: as few as keep the threads busy, because an interactive call waits for a batch.

    On 2 threads a token takes the same CPU time in batches of 256, 512 and 1024 tokens; on 8 threads batches of up to
    4096 are no faster than 1024.
    """
    return min(MAX_PADDED_TOKENS, max(_MIN_TOKENS, _TOKENS_PER_THREAD * threads))


class TextQueue:
    """The waiting texts, by call. A batch is chosen only when the model is free, so that late texts join it."""

    def __init__(self, *, padded_tokens: int = MAX_PADDED_TOKENS, similar: float = MIN_LENGTH_RATIO) -> None:
        self._padded_tokens = padded_tokens
        self._similar = similar
        self._order = TurnOrder()
        self._lengths: dict[int, list[tuple[int, int]]] = {}
        """The (tokens, index) of each text by call, longest last."""

    def __bool__(self) -> bool:
        return bool(self._lengths)

    def add(self, info: CallInfo, lengths: Sequence[int]) -> None:
        """Add the texts of a call, given the tokens of each."""
        if lengths:
            self._lengths[info.call] = sorted((length, index) for index, length in enumerate(lengths))
            self._order.add(info)

    def remove(self, call: int) -> None:
        """Remove what still waits of a call."""
        self._lengths.pop(call, None)
        self._order.remove(call)

    def take(self) -> list[TextRef]:
        """The next batch, longest text first. Empty if nothing waits.

        The longest text of the call whose turn it is sets the length of the batch. Texts of similar length join it, first
        those of the same call, then those of other calls of its class: bulk texts would slow an interactive batch down.
        """
        calls = self._order.take_turn()
        if not calls:
            return []
        longest = self._lengths[calls[0]][-1][0]
        most = padded_length(longest)
        least = self._similar * longest
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
