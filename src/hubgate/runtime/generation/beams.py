"""Beam search, by the rules of transformers' `generate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hubgate.runtime.generation.spec import Text2TextSpec

Array = np.ndarray[Any, Any]


class BeamSearch:
    """Finds the most likely text of one prompt.

    Args:
        spec: the number of beams, and how finished texts are scored.
        ends: the tokens that end a text.
        max_new_tokens: of the text.
    """

    def __init__(self, spec: Text2TextSpec, ends: Sequence[int], max_new_tokens: int) -> None:
        self._spec = spec
        self._ends = frozenset(ends)
        self._longest = max_new_tokens
        self.beams: list[list[int]] = [[spec.start] for _ in range(spec.beams)]
        """The tokens of each running text, with the one that starts it."""
        # All start alike, so only the first counts in the first step.
        self._sums = np.array([0.0] + [-1e9] * (spec.beams - 1))
        self._finished: list[tuple[float, list[int]]] = []
        self.done = False

    def advance(self, scores_of: Callable[[int, Sequence[int]], Array]) -> list[int]:
        """Choose the next tokens, given the scores of each beam. Returns from which beam each one continues."""
        scores = np.stack([scores_of(beam, ids) for beam, ids in enumerate(self.beams)])
        totals = self._sums[:, None] + scores
        flat = totals.reshape(-1)
        width, count = scores.shape[1], 2 * self._spec.beams
        best = np.argsort(-flat, kind="stable")[:count]
        beams: list[list[int]] = []
        sources, sums = [], []
        for rank, place in enumerate(best):
            source, token, total = int(place) // width, int(place) % width, float(flat[place])
            if token in self._ends:
                if rank < self._spec.beams:
                    self._finish([*self.beams[source], token], total)
            elif len(beams) < self._spec.beams:
                beams.append([*self.beams[source], token])
                sources.append(source)
                sums.append(total)
        self.beams, self._sums = beams, np.array(sums)
        self.done = self._is_done(float(flat[best[0]]))
        return sources

    def best(self) -> list[int]:
        """The tokens of the best text, without the one that starts it."""
        if not self.done:
            for ids, total in zip(self.beams, self._sums, strict=True):
                self._finish(ids, float(total))
        return max(self._finished)[1][1:]

    def _finish(self, ids: list[int], total: float) -> None:
        self._finished.append((self._score(total, len(ids) - 1), ids))
        self._finished.sort(key=lambda one: one[0], reverse=True)
        del self._finished[self._spec.beams :]

    def _score(self, total: float, length: int) -> float:
        return float(total / length**self._spec.length_penalty)

    def _is_done(self, best: float) -> bool:
        if len(self._finished) < self._spec.beams:
            return False
        if self._spec.early_stopping is True:
            return True
        never = self._spec.early_stopping == "never" and self._spec.length_penalty > 0
        length = self._longest if never else len(self.beams[0]) - 1
        return self._finished[-1][0] >= self._score(best, length)
