"""Cohere's own client, both versions: embeddings, reranking, tokens, chats, and its exceptions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from expected import (
    ENDPOINTS,
    KEY,
    PROMPT,
    SPENT_KEY,
    TEXTS,
    URL,
    check_refused,
    check_same,
    check_text,
    passed,
    version_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

version_of("cohere")
cohere: Any = importlib.import_module("cohere")  # by its name, mypy would find tests/web/cohere

LOCAL = ENDPOINTS[-1]
DOCUMENTS = ["a harbour", "a gate"]
MESSAGES = [{"role": "user", "content": PROMPT}]
for base in (URL, f"{URL}/v1"):
    where = base.removeprefix(URL) or "/"
    one, two = cohere.Client(KEY, base_url=base), cohere.ClientV2(KEY, base_url=base)
    for name in ENDPOINTS:
        plain = one.embed(model=name, texts=TEXTS, input_type="search_document")
        check_same(name, plain.embeddings, f"v1 embed at {where}")
        assert plain.texts == TEXTS, plain.texts
        assert plain.meta.billed_units.input_tokens > 0, plain.meta
        typed = two.embed(model=name, texts=TEXTS, input_type="search_document", embedding_types=["float"])
        check_same(name, typed.embeddings.float_, f"v2 embed at {where}")
        for client in (one, two):
            short = client.embed(
                model=name,
                texts=TEXTS,
                input_type="search_document",
                embedding_types=["int8", "uint8", "binary", "ubinary"],
            ).embeddings
            for floats, numbers, bits in zip(plain.embeddings, short.int8, short.ubinary, strict=True):
                assert len(numbers) == len(floats) == 8 * len(bits)
                assert all(number * real >= 0 for number, real in zip(numbers, floats, strict=True))
                assert int("".join("01"[real > 0] for real in floats[:8]), 2) == bits[0]
            assert short.uint8 == [[number + 128 for number in vector] for vector in short.int8]
            assert short.binary == [[number - 128 for number in vector] for vector in short.ubinary]
        passed(f"int8, uint8, binary and ubinary of v1 and v2 at {where} [{name}]")
    for ranked in (
        one.rerank(model="ranker", query="a gate", documents=DOCUMENTS, top_n=1, max_chunks_per_doc=10),
        two.rerank(model="ranker", query="a gate", documents=DOCUMENTS, top_n=1, max_tokens_per_doc=4096),
    ):
        assert len(ranked.results) == 1, ranked
        assert ranked.results[0].relevance_score > 0, ranked
    passed(f"rerank of v1 and v2 at {where}")
    tokens = one.tokenize(text=TEXTS[0], model=LOCAL, offline=False)
    assert "".join(tokens.token_strings) == TEXTS[0], tokens
    passed(f"tokenize at {where}")
    check_text(one.chat(model="llm", message=PROMPT).text, f"v1 chat at {where}")
    events = list(one.chat_stream(model="llm", message=PROMPT))
    check_text("".join(e.text for e in events if e.event_type == "text-generation"), f"v1 stream at {where}")
    assert events[-1].finish_reason == "COMPLETE", events[-1]
    check_text(two.chat(model="llm", messages=MESSAGES).message.content[0].text, f"v2 chat at {where}")
    parts = list(two.chat_stream(model="llm", messages=MESSAGES))
    written = "".join(part.delta.message.content.text for part in parts if part.type == "content-delta")
    check_text(written, f"v2 stream at {where}")
    assert parts[-1].delta.usage.tokens.output_tokens > 0, parts[-1]


listed = {model.name: model.endpoints for model in cohere.Client(KEY, base_url=URL).models.list().models}
assert listed["ranker"] == ["rerank"], listed
assert cohere.Client(KEY, base_url=URL).models.get("llm").endpoints == ["chat"]
passed("models")


def asking(key: str, model: str, text: str = "a") -> Callable[[], object]:
    """A call of `embed` without retries."""
    client = cohere.ClientV2(key, base_url=URL)
    return lambda: client.embed(
        model=model,
        texts=[text],
        input_type="search_query",
        embedding_types=["float"],
        request_options={"max_retries": 0},
    )


check_refused(asking(KEY, "fake", ""), cohere.BadRequestError, "[texts[0]] is an empty string")
check_refused(asking("wrong", "fake"), cohere.UnauthorizedError, "key")
check_refused(asking(KEY, "none"), cohere.NotFoundError, "[none]")
asking(SPENT_KEY, "fake")()
check_refused(asking(SPENT_KEY, "fake"), cohere.TooManyRequestsError, "limit")
check_refused(asking(KEY, "gone"), cohere.InternalServerError, "server")
