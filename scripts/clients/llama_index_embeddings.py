"""LlamaIndex: its TEI embedding (which doubles `Bearer`), its Hugging Face one, and OpenAILike."""

from __future__ import annotations

from expected import ENDPOINTS, KEY, TEXTS, URL, check_same, version_of
from llama_index.embeddings.huggingface_api import (  # type: ignore[import-not-found]
    HuggingFaceInferenceAPIEmbedding,
)
from llama_index.embeddings.openai_like import OpenAILikeEmbedding  # type: ignore[import-not-found]
from llama_index.embeddings.text_embeddings_inference import (  # type: ignore[import-not-found]
    TextEmbeddingsInference,
)

version_of(
    "llama-index-core",
    "llama-index-embeddings-text-embeddings-inference",
    "llama-index-embeddings-huggingface-api",
    "llama-index-embeddings-openai-like",
)

for name in ENDPOINTS:
    base = f"{URL}/hf/{name}"
    for token, what in ((KEY, "TEI"), (f"Bearer {KEY}", "TEI, Bearer doubled")):
        tei = TextEmbeddingsInference(model_name=name, base_url=base, auth_token=token)
        check_same(name, tei.get_text_embedding_batch(TEXTS), what)
    hub = HuggingFaceInferenceAPIEmbedding(model_name=base, token=KEY)
    check_same(name, hub.get_text_embedding_batch(TEXTS), "HuggingFaceInferenceAPIEmbedding")
    like = OpenAILikeEmbedding(model_name=name, api_base=f"{URL}/v1", api_key=KEY)
    check_same(name, like.get_text_embedding_batch(TEXTS), "OpenAILikeEmbedding")
    check_same(name, [like.get_query_embedding(text) for text in TEXTS], "OpenAILikeEmbedding, queries")
