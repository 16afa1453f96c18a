"""langchain-huggingface. Its embeddings refuse a URL as their model, so they are given the client to use."""

from __future__ import annotations

import asyncio

from expected import ENDPOINTS, KEY, TEXTS, URL, check_same, version_of
from huggingface_hub import AsyncInferenceClient, InferenceClient
from langchain_huggingface import HuggingFaceEndpointEmbeddings  # type: ignore[import-not-found]

version_of("langchain-huggingface", "huggingface_hub")

for name in ENDPOINTS:
    base = f"{URL}/hf/{name}"
    embeddings = HuggingFaceEndpointEmbeddings(model="org/model", huggingfacehub_api_token=KEY)
    embeddings.client = InferenceClient(base_url=base, api_key=KEY)
    embeddings.async_client = AsyncInferenceClient(base_url=base, api_key=KEY)
    check_same(name, embeddings.embed_documents(TEXTS), "embed_documents")
    check_same(name, [embeddings.embed_query(text) for text in TEXTS], "embed_query")
    check_same(name, asyncio.run(embeddings.aembed_documents(TEXTS)), "aembed_documents")
    # What it does with a model of another host: no key is sent, so the key must stand in the path.
    embeddings.client = InferenceClient(base_url=f"{URL}/k/{KEY}/hf/{name}")
    check_same(name, embeddings.embed_documents(TEXTS), "key in the path")
