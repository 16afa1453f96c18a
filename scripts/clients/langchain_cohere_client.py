"""LangChain's package for Cohere: embeddings, reranking and chat."""

from __future__ import annotations

from expected import ENDPOINTS, KEY, PROMPT, TEXTS, URL, check_same, check_text, passed, version_of
from langchain_cohere import (  # type: ignore[import-not-found]
    ChatCohere,
    CohereEmbeddings,
    CohereRerank,
)

version_of("langchain-cohere", "cohere")

for name in ENDPOINTS:
    embeddings = CohereEmbeddings(model=name, cohere_api_key=KEY, base_url=URL)
    check_same(name, embeddings.embed_documents(TEXTS), "embed_documents")
    check_same(name, [embeddings.embed_query(text) for text in TEXTS], "embed_query")
ranker = CohereRerank(model="ranker", cohere_api_key=KEY, base_url=URL, top_n=1)
assert len(ranker.rerank(documents=TEXTS, query="a gate")) == 1
passed("rerank")
chat = ChatCohere(model="llm", cohere_api_key=KEY, base_url=URL)
check_text(chat.invoke(PROMPT).content, "chat")
check_text("".join(part.content for part in chat.stream(PROMPT)), "stream")
