"""Haystack's embedders for a TEI server and for an Inference Endpoint, and its ranker for a TEI server."""

from __future__ import annotations

from expected import ENDPOINTS, KEY, RANKER_KEY, TEXTS, URL, check_same, passed, version_of
from haystack import Document  # type: ignore[import-not-found]
from haystack.utils import Secret  # type: ignore[import-not-found]
from haystack_integrations.components.embedders.huggingface_api import (  # type: ignore[import-not-found]
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from haystack_integrations.components.rankers.huggingface_api import (  # type: ignore[import-not-found]
    HuggingFaceTEIRanker,
)

version_of("haystack-ai", "huggingface-api-haystack", "huggingface_hub")

for name in ENDPOINTS:
    for api in ("text_embeddings_inference", "inference_endpoints"):
        options = {
            "api_type": api,
            "api_params": {"url": f"{URL}/hf/{name}"},
            "token": Secret.from_token(KEY),
        }
        one = HuggingFaceAPITextEmbedder(**options, normalize=True)
        check_same(name, [one.run(text=text)["embedding"] for text in TEXTS], f"text embedder, {api}")
        many = HuggingFaceAPIDocumentEmbedder(**options, normalize=True, progress_bar=False)
        documents = many.run(documents=[Document(content=text) for text in TEXTS])["documents"]
        check_same(name, [document.embedding for document in documents], f"document embedder, {api}")

# It posts to the root of the host, whatever path its URL has: there the key's default endpoint answers.
ranker = HuggingFaceTEIRanker(url=f"{URL}/hf/ranker", token=Secret.from_token(RANKER_KEY), top_k=1)
ranked = ranker.run(query="a gate", documents=[Document(content=text) for text in TEXTS])["documents"]
assert len(ranked) == 1, ranked
passed("TEI ranker")
