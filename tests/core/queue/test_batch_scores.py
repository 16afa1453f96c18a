"""Reranking and sparse vectors in the batch queue, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from virtual_time import now, run

from hubgate.core.queue.batch_queue import BatchLimits, BatchQueue
from hubgate.core.traffic.rate_limiter import RateLimiter
from hubgate.domain.calls import Rerank, Scores, SparseEmbed, SparseVectors, Tokenize, Tokens
from hubgate.domain.errors import Cause, UpstreamUnreadable

if TYPE_CHECKING:
    from hubgate.domain.calls import Call, Result


@dataclass
class Ranker:
    """Scores a text by its length; gives its first letter the weight 1."""

    calls: list[Call] = field(default_factory=list)
    drop: int = 0

    async def __call__(self, call: Call) -> Result:
        self.calls.append(call)
        await asyncio.sleep(0.1)
        texts = call.texts[self.drop :]
        if isinstance(call, Rerank):
            return Scores(items=[float(len(text)) for text in texts])
        if isinstance(call, SparseEmbed):
            return SparseVectors(items=[b'{"%b":1}' % text[:1].encode() for text in texts])
        return Tokens([[] for _ in texts])


def packed(ranker: Ranker, **limits: int) -> BatchQueue:
    return BatchQueue(ranker, limiter=RateLimiter(None, clock=now), limits=BatchLimits(**limits), clock=now)


def test_splits_long_rerank_call_and_keeps_order() -> None:
    async def main() -> None:
        ranker = Ranker()
        texts = ["x" * size for size in (5, 1, 4, 2, 3)]
        scores = await packed(ranker, max_texts=2)(Rerank(query="q", texts=texts))
        assert isinstance(scores, Scores)
        assert scores.items == [5, 1, 4, 2, 3]
        assert sorted(len(call.texts) for call in ranker.calls) == [1, 2, 2]
        assert all(isinstance(call, Rerank) and call.query == "q" for call in ranker.calls)

    run(main())


def test_batches_rerank_calls_with_the_same_query_only() -> None:
    async def main() -> None:
        ranker = Ranker()
        queue = packed(ranker)
        calls = [Rerank(query=query, texts=[text]) for query, text in (("q", "a"), ("q", "bb"), ("r", "ccc"))]
        answers = await asyncio.gather(*map(queue, calls))
        assert [list(answer.items) for answer in answers] == [[1], [2], [3]]
        assert sorted(len(call.texts) for call in ranker.calls) == [1, 2]

    run(main())


def test_batches_sparse_embeddings_but_not_tokenize_calls() -> None:
    async def main() -> None:
        ranker = Ranker()
        queue = packed(ranker, max_texts=2)
        one, two, tokens = await asyncio.gather(
            queue(SparseEmbed(texts=["ant", "bee"])),
            queue(SparseEmbed(texts=["cat"])),
            queue(Tokenize(texts=["x", "y", "z"])),
        )
        assert (one.items, two.items) == ([b'{"a":1}', b'{"b":1}'], [b'{"c":1}'])
        assert len(tokens.items) == 3

    run(main())


def test_rejects_wrong_number_of_scores() -> None:
    async def main() -> None:
        queue = packed(Ranker(drop=1))
        with pytest.raises(UpstreamUnreadable) as raised:
            await queue(Rerank(query="q", texts=["a", "b"]))
        assert raised.value.cause is Cause.WRONG_COUNT

    run(main())
