"""The gateway's worker with other batching rules, to compare only the rules.

python policies.py {alone,first-come} FOLDER …
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING

from hubgate.runtime.batching import TextQueue, TextRef, padded_length
from hubgate.runtime.worker import main

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubgate.runtime.order import CallInfo


class FirstCome(TextQueue):
    """The oldest texts together, whatever their lengths, up to so many padded tokens: the usual rule of servers."""

    def __init__(self, padded_tokens: int) -> None:
        super().__init__()
        self._budget = padded_tokens
        self._texts: deque[tuple[int, TextRef]] = deque()

    def __bool__(self) -> bool:
        return bool(self._texts)

    def add(self, asked: CallInfo, lengths: Sequence[int]) -> None:
        """Let the texts of a call wait."""
        self._texts += [(length, TextRef(asked.call, index)) for index, length in enumerate(lengths)]

    def take(self) -> list[TextRef]:
        """The oldest that fit."""
        batch: list[TextRef] = []
        longest = 0
        while self._texts:
            longest = max(longest, self._texts[0][0])
            if batch and padded_length(longest) * (len(batch) + 1) > self._budget:
                break
            batch.append(self._texts.popleft()[1])
        return batch


POLICIES = {"alone": TextQueue(padded_tokens=1), "first-come": FirstCome(16_384)}

if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], POLICIES[sys.argv[1]]))
