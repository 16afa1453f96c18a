"""Hugging Face's Inference Providers: one row for each provider and task, in the provider's own format.

Chat has no rows: the router takes it at one address for all providers, and picks the provider itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hubgate.domain.calls import WireFormat
from hubgate.domain.endpoint import Task
from hubgate.upstreams.engines import embeddings, generation
from hubgate.upstreams.engines.embeddings import EmbedRoute
from hubgate.upstreams.engines.generation import OPENAI_CHAT, Form, OpenAIBodies
from hubgate.upstreams.engines.rerank import RerankRoute, toolkit_body

POLICIES = frozenset({"fastest", "cheapest", "preferred"})
"""How the router picks a provider for chat, instead of a provider's name."""
AUTO = "auto"
_BODIES = OpenAIBodies(server="an Inference Provider", renames={"max_new_tokens": "max_tokens"})

CHAT_FORM = Form(route=OPENAI_CHAT, body=_BODIES.chat)


def _embed(path: str) -> EmbedRoute:
    return EmbedRoute(path=path, body=embeddings.openai_floats_body, options=frozenset({"dimensions"}))


def _complete(route: str) -> Form:
    return Form(route=route, body=_BODIES.complete)


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
"""In all tables, `{model}` in a path is the provider's own name of the model."""
COMPLETION_FORMS: Mapping[str, Form] = {
    "deepinfra": _complete("/deepinfra/v1/openai/completions"),
    "featherless-ai": _complete("/featherless-ai/v1/completions"),
    "novita": _complete("/novita/v3/openai/completions"),
    "together": _complete("/together/v1/completions"),
    "hf-inference": Form(
        route="/hf-inference/models/{model}",
        body=generation.tgi_root_body,
        wire_format=WireFormat.TGI,
        returns_prompt=True,
    ),
}
RERANK_ROUTES: Mapping[str, RerankRoute] = {
    # Hugging Face's clients have no such task; its own servers take it in this format.
    "hf-inference": RerankRoute(path="/hf-inference/models/{model}/pipeline/text-ranking", body=toolkit_body),
}

MAPPED_TASKS: Mapping[Task, Sequence[str]] = {
    Task.TEXT_EMBEDDING: ("feature-extraction", "sentence-similarity"),
    Task.RERANK: ("text-ranking", "text-classification"),
    Task.COMPLETION: ("text-generation",),
    Task.CHAT_COMPLETION: ("conversational",),
}
"""The Hub's names of each task, where it lists the providers of a model."""
TABLES: Mapping[Task, Mapping[str, object]] = {
    Task.TEXT_EMBEDDING: EMBED_ROUTES,
    Task.RERANK: RERANK_ROUTES,
    Task.COMPLETION: COMPLETION_FORMS,
}
"""The supported providers of each task; for chat, all are."""
