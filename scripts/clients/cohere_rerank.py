"""Cohere's own client, for its reranker."""

from __future__ import annotations

import cohere  # type: ignore[import-not-found]
from expected import KEY, URL, passed, version_of

version_of("cohere")

DOCUMENTS = ["a harbour", "a gate"]
for base in (URL, f"{URL}/v1"):
    one, two = cohere.Client(KEY, base_url=base), cohere.ClientV2(KEY, base_url=base)
    for ranked in (
        one.rerank(model="ranker", query="a gate", documents=DOCUMENTS, top_n=1, max_chunks_per_doc=10),
        two.rerank(model="ranker", query="a gate", documents=DOCUMENTS, top_n=1, max_tokens_per_doc=4096),
    ):
        assert len(ranked.results) == 1, ranked
        assert ranked.results[0].relevance_score > 0, ranked
    passed(f"rerank of v1 and v2 at {base.removeprefix(URL) or '/'}")
