"""LiteLLM in front of hubgate: as OpenAI's, Cohere's, Voyage's, Jina's and TEI's API."""

from __future__ import annotations

import litellm  # type: ignore[import-not-found]
from expected import (
    ENDPOINTS,
    KEY,
    PROMPT,
    TEXTS,
    URL,
    check_refused,
    check_same,
    check_text,
    passed,
    version_of,
)

version_of("litellm")

MESSAGES = [{"role": "user", "content": PROMPT}]
BASES = {
    "openai": f"{URL}/v1",
    "cohere": f"{URL}/v2/embed",
    "jina_ai": f"{URL}/v1",
    "voyage": f"{URL}/v1",
}
for name in ENDPOINTS:
    for provider, base in BASES.items():
        more = {"input_type": "search_document"} if provider == "cohere" else {}
        reply = litellm.embedding(f"{provider}/{name}", input=TEXTS, api_base=base, api_key=KEY, **more)
        check_same(name, [one["embedding"] for one in reply.data], f"embedding, {provider}/")
for provider, base in (("cohere", URL), ("jina_ai", f"{URL}/v1"), ("huggingface", f"{URL}/hf/ranker")):
    ranked = litellm.rerank(
        f"{provider}/ranker",
        query="a gate",
        documents=["a harbour", "a gate"],
        top_n=1,
        api_base=base,
        api_key=KEY,
    )
    assert [one["index"] for one in ranked.results] == [1], ranked
    passed(f"rerank, {provider}/")
for provider, base in (("openai", f"{URL}/v1"), ("cohere_chat", f"{URL}/v2/chat")):
    asked = {"model": f"{provider}/llm", "messages": MESSAGES, "api_base": base, "api_key": KEY}
    check_text(litellm.completion(**asked).choices[0].message.content, f"completion, {provider}/")
    if provider == "openai":  # LiteLLM cannot read Cohere's server-sent events
        parts = litellm.completion(**asked, stream=True)
        check_text("".join(part.choices[0].delta.content or "" for part in parts), "stream, openai/")


def failing(key: str, model: str) -> object:
    """A call without retries."""
    return litellm.embedding(model, input=["a"], api_base=f"{URL}/v1", api_key=key, max_retries=0)


check_refused(lambda: failing("wrong", "openai/fake"), litellm.AuthenticationError, "key")
check_refused(lambda: failing(KEY, "openai/none"), litellm.NotFoundError, "[none]")
