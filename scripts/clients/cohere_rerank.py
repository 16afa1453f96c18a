"""Cohere's own client, for its reranker."""

from __future__ import annotations

import cohere  # type: ignore[import-not-found]
from expected import KEY, URL, passed, version_of

version_of("cohere")

for name, client in (("v1", cohere.Client(KEY, base_url=URL)), ("v2", cohere.ClientV2(KEY, base_url=URL))):
    ranked = client.rerank(model="ranker", query="a gate", documents=["a harbour", "a gate"], top_n=1)
    assert len(ranked.results) == 1, ranked
    assert ranked.results[0].relevance_score > 0, ranked
    passed(f"rerank of {name}")
