"""Voyage's own client: embeddings, reranking, and its exceptions."""

from __future__ import annotations

import voyageai  # type: ignore[import-not-found]
from expected import ENDPOINTS, KEY, SPENT_KEY, TEXTS, URL, check_refused, check_same, passed, version_of

version_of("voyageai")

client = voyageai.Client(api_key=KEY, base_url=f"{URL}/v1")
for name in ENDPOINTS:
    result = client.embed(TEXTS, model=name, input_type="document")
    check_same(name, result.embeddings, "embed")
    assert result.total_tokens > 0, result
floats = client.embed(TEXTS, model="fake").embeddings
bits = ["".join("1" if number > 0 else "0" for number in vector) for vector in floats]
packed = [[int(row[at : at + 8], 2) for at in range(0, len(row), 8)] for row in bits]
for dtype, offset in (("ubinary", 0), ("binary", 128)):
    short = client.embed(TEXTS, model="fake", output_dtype=dtype).embeddings
    assert short == [[byte - offset for byte in row] for row in packed], short
for dtype, offset in (("int8", 0), ("uint8", 128)):
    short = client.embed(TEXTS, model="fake", output_dtype=dtype).embeddings
    assert [[byte > offset for byte in row] for row in short] == [[n > 0 for n in row] for row in floats], (
        short
    )
passed("output_dtype")
ranked = client.rerank("a gate", ["a harbour", "a gate"], model="ranker", top_k=1)
assert [one.document for one in ranked.results] == ["a gate"], ranked.results
assert ranked.total_tokens > 0, ranked
passed("rerank")

errors = voyageai.error
check_refused(lambda: client.embed([""], model="fake"), errors.InvalidRequestError, "empty string")
check_refused(lambda: client.embed(["a"], model="none"), errors.APIError, "[none]")
wrong = voyageai.Client(api_key="wrong", base_url=f"{URL}/v1")
check_refused(lambda: wrong.embed(["a"], model="fake"), errors.AuthenticationError, "key")
spent = voyageai.Client(api_key=SPENT_KEY, base_url=f"{URL}/v1")
spent.embed(["a"], model="fake")
check_refused(lambda: spent.embed(["a"], model="fake"), errors.RateLimitError, "limit")
check_refused(lambda: client.embed(["a"], model="gone"), errors.ServiceUnavailableError, "overloaded")
