"""How two models rank the same texts: what changes for the users of a search when one replaces the other. Needs numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 10
_BLOCK = 64
"""Queries whose scores are in memory at once."""
_SAME_COSINE = 0.99999

Matrix = npt.NDArray[np.float32]


class Ranking(NamedTuple):
    """What changes for one query. Texts are named by their positions."""

    query: int
    old: list[int]
    """The nearest texts by the old model, best first."""
    new: list[int]
    shared: int
    """How many texts are in both."""
    first_now: int
    """The rank by the new model of the old model's first text, from 1."""


class Comparison(NamedTuple):
    """Two models compared."""

    rankings: list[Ranking]
    neighbours: int
    cosines: Sequence[float]
    """Between the two vectors of each text, if they have the same dimensions."""

    @property
    def are_same(self) -> bool:
        """Whether both models give the same vectors."""
        return bool(self.cosines) and min(self.cosines) >= _SAME_COSINE

    def shared(self) -> float:
        """The mean number of neighbours in common."""
        return sum(ranking.shared for ranking in self.rankings) / len(self.rankings)

    def most_changed(self, count: int) -> list[Ranking]:
        """The queries whose results change most, those first whose results have least in common."""
        changed = [ranking for ranking in self.rankings if ranking.old != ranking.new]
        return sorted(changed, key=lambda one: (one.shared, -one.first_now))[:count]

    def share_of_first_within(self, rank: int) -> float:
        """The share of queries whose first text stays within this rank."""
        return sum(ranking.first_now <= rank for ranking in self.rankings) / len(self.rankings)


def compare(old: Vectors, new: Vectors, *, neighbours: int = NEIGHBOURS) -> Comparison:
    """Compare two models, by cosine similarity."""
    cosines: Sequence[float] = ()
    if old.texts.shape == new.texts.shape:
        cosines = np.einsum("ij,ij->i", old.texts, new.texts).tolist()
    rankings: list[Ranking] = []
    for first in range(0, old.query_count, _BLOCK):
        scores, scores_now = old.scores(first, _BLOCK), new.scores(first, _BLOCK)
        for query, (before, now) in enumerate(zip(scores, scores_now, strict=True), first):
            nearest, nearest_now = _nearest(before, neighbours), _nearest(now, neighbours)
            rankings.append(
                Ranking(
                    query=query,
                    old=nearest,
                    new=nearest_now,
                    shared=len({*nearest} & {*nearest_now}),
                    first_now=int((now > now[nearest[0]]).sum()) + 1,
                )
            )
    return Comparison(rankings, min(neighbours, old.candidates), cosines)


class Vectors:
    """The vectors of one model: of the texts, and of queries. Without queries, some of the texts are the queries."""

    def __init__(self, texts: Sequence[bytes], queries: Sequence[bytes], chosen: Sequence[int]) -> None:
        """Read f32 vectors.

        Args:
            texts: their vectors.
            queries: their vectors; empty to use some of the texts.
            chosen: the positions of the texts that are queries. A text does not count as its own neighbour.
        """
        self.texts = _matrix(texts)
        self._chosen = chosen
        self._queries = _matrix(queries) if queries else self.texts[list(chosen)]

    @property
    def query_count(self) -> int:
        return len(self._queries)

    @property
    def candidates(self) -> int:
        """The number of texts that can be neighbours of a query."""
        return len(self.texts) - bool(self._chosen)

    def scores(self, first: int, count: int) -> Matrix:
        """The similarity of each of these queries to each text."""
        scores: Matrix = self._queries[first : first + count] @ self.texts.T
        for row, text in enumerate(self._chosen[first : first + count]):
            scores[row, text] = -np.inf
        return scores


def _matrix(vectors: Sequence[bytes]) -> Matrix:
    """Vectors as rows of length 1."""
    matrix = np.frombuffer(b"".join(vectors), np.float32).reshape(len(vectors), -1)
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    unit: Matrix = matrix / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _nearest(scores: npt.NDArray[np.float32], count: int) -> list[int]:
    """The positions of the highest scores, best first; of equal scores, the first text."""
    order = np.argsort(-scores, kind="stable")[:count]
    return [int(position) for position in order if scores[position] != -np.inf]
