"""The OpenAI-compatible clients of Dify's SDK, without its download of GPT-2's vocabulary, by which it guesses lengths."""

from __future__ import annotations

from dify_plugin.interfaces.model.openai_compatible.llm import (  # type: ignore[import-not-found]
    OAICompatLargeLanguageModel,
)
from dify_plugin.interfaces.model.openai_compatible.rerank import (  # type: ignore[import-not-found]
    OAICompatRerankModel,
)
from dify_plugin.interfaces.model.openai_compatible.text_embedding import (  # type: ignore[import-not-found]
    OAICompatEmbeddingModel,
)


class Embedder(OAICompatEmbeddingModel):  # type: ignore[misc]
    """Embeds documents and queries."""

    __module__ = "openai_api_compatible.models.text_embedding"  # errors read the provider from it

    def _get_num_tokens_by_gpt2(self, text: str) -> int:
        return len(text.split())


class Writer(OAICompatLargeLanguageModel):  # type: ignore[misc]
    """Generates text."""

    __module__ = "openai_api_compatible.models.llm"

    def _get_num_tokens_by_gpt2(self, text: str) -> int:
        return len(text.split())


class Ranker(OAICompatRerankModel):  # type: ignore[misc]
    """Ranks documents."""

    __module__ = "openai_api_compatible.models.rerank"
