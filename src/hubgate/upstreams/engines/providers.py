"""Hugging Face's Inference Providers: one row for each provider and task, in the provider's own format.

Chat has one route for all providers, `CHAT_ROUTE`: the router picks the provider from the name of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hubgate.domain.calls import WireFormat
from hubgate.domain.endpoint import Task
from hubgate.upstreams.engines import embeddings, generation
from hubgate.upstreams.engines.embeddings import EmbedRoute
from hubgate.upstreams.engines.generation import OPENAI_CHAT, GenerationRoute, OpenAIBodies
from hubgate.upstreams.engines.rerank import RerankRoute, toolkit_body

POLICIES = frozenset({"fastest", "cheapest", "preferred"})
"""Accepted for chat instead of a provider's name: how the router picks the provider."""
AUTO = "auto"
_BODIES = OpenAIBodies(server="an Inference Provider", renames={"max_new_tokens": "max_tokens"})

CHAT_ROUTE = GenerationRoute(path=OPENAI_CHAT, body=_BODIES.chat)


def _embed(path: str) -> EmbedRoute:
    return EmbedRoute(path=path, body=embeddings.openai_floats_body, options=frozenset({"dimensions"}))


def _complete(path: str) -> GenerationRoute:
    return GenerationRoute(path=path, body=_BODIES.complete)


EMBED_ROUTES: Mapping[str, EmbedRoute] = {
    "hf-inference": EmbedRoute(
        path="/hf-inference/models/{model}/pipeline/feature-extraction",
        body=embeddings.hf_inference_body,
        options=frozenset({"normalize", "prompt_name", "dimensions", "truncate_left"}),
        token_vectors=True,
    ),
    "deepinfra": _embed("/deepinfra/v1/openai/embeddings"),
    "scaleway": _embed("/scaleway/v1/embeddings"),
    "together": _embed("/together/v1/embeddings"),
}
"""Routes by provider. In all tables, `{model}` in a path stands for the provider's own name of the model."""
COMPLETION_ROUTES: Mapping[str, GenerationRoute] = {
    "deepinfra": _complete("/deepinfra/v1/openai/completions"),
    "featherless-ai": _complete("/featherless-ai/v1/completions"),
    "novita": _complete("/novita/v3/openai/completions"),
    "together": _complete("/together/v1/completions"),
    "hf-inference": GenerationRoute(
        path="/hf-inference/models/{model}",
        body=generation.tgi_root_body,
        wire_format=WireFormat.TGI,
        returns_prompt=True,
    ),
}
RERANK_ROUTES: Mapping[str, RerankRoute] = {
    # Hugging Face's client libraries do not support reranking; its servers accept this format.
    "hf-inference": RerankRoute(path="/hf-inference/models/{model}/pipeline/text-ranking", body=toolkit_body),
}

HUB_TASKS: Mapping[Task, Sequence[str]] = {
    Task.TEXT_EMBEDDING: ("feature-extraction", "sentence-similarity"),
    Task.RERANK: ("text-ranking", "text-classification"),
    Task.COMPLETION: ("text-generation",),
    Task.CHAT_COMPLETION: ("conversational",),
}
"""The names of each task in `inferenceProviderMapping`, the Hub's list of a model's providers."""
ROUTES_BY_TASK: Mapping[Task, Mapping[str, object]] = {
    Task.TEXT_EMBEDDING: EMBED_ROUTES,
    Task.RERANK: RERANK_ROUTES,
    Task.COMPLETION: COMPLETION_ROUTES,
}
"""The routes of each task by provider. Chat is absent: every provider is supported."""
