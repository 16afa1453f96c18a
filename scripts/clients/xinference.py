"""Xinference's client, as Dify's plugin uses it: it looks up a model, then embeds, reranks or chats."""

from __future__ import annotations

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
from xinference_client.client.restful.restful_client import (  # type: ignore[import-not-found]
    Client,
    RESTfulChatModelHandle,
    RESTfulEmbeddingModelHandle,
    RESTfulRerankModelHandle,
)

version_of("xinference-client")

client = Client(URL, api_key=KEY)
for name in ENDPOINTS:
    embedder = client.get_model(name)
    assert isinstance(embedder, RESTfulEmbeddingModelHandle), embedder
    reply = embedder.create_embedding(TEXTS)
    check_same(name, [one["embedding"] for one in reply["data"]], "create_embedding")
ranker = client.get_model("ranker")
assert isinstance(ranker, RESTfulRerankModelHandle), ranker
ranked = ranker.rerank(["a harbour", "a gate"], "a gate", top_n=1, return_documents=True)
assert ranked["results"][0]["document"]["text"] == "a gate", ranked
passed("rerank")
llm = client.get_model("llm")
assert isinstance(llm, RESTfulChatModelHandle), llm
messages = [{"role": "user", "content": PROMPT}]
check_text(llm.chat(messages)["choices"][0]["message"]["content"], "chat")

check_refused(lambda: client.get_model("none"), RuntimeError, "none")
check_refused(lambda: client.get_model("fake").create_embedding([""]), RuntimeError, "empty string")
check_refused(lambda: Client(URL, api_key="wrong").get_model("fake"), RuntimeError, "401")
