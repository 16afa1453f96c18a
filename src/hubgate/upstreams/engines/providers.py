"""Hugging Face's Inference Providers, one row each and task: where the router takes what, in the provider's own dialect.

Conversations are not here: the router takes them all at one address, and picks the provider itself (`CHAT`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hubgate.domain.calls import WireFormat
from hubgate.domain.endpoint import Task
from hubgate.upstreams.engines.embedders import Dialect
from hubgate.upstreams.engines.generators import CHAT_ROUTE, Form
from hubgate.upstreams.engines.requests import embeddings as bodies
from hubgate.upstreams.engines.requests import text as texts
from hubgate.upstreams.engines.requests.text import OpenAIBodies
from hubgate.upstreams.engines.rerankers import Ranker, sentence_ranking

POLICIES = frozenset({"fastest", "cheapest", "preferred"})
"""By which the router picks a provider of conversations, where none is named."""
AUTO = "auto"
_BODIES = OpenAIBodies(server="an Inference Provider", renames={"max_new_tokens": "max_tokens"})

CHAT = Form(route=CHAT_ROUTE, body=_BODIES.chat)


def _embedder(route: str) -> Dialect:
    return Dialect(route=route, body=bodies.openai_floats, understands=frozenset({"dimensions"}))


def _completer(route: str) -> Form:
    return Form(route=route, body=_BODIES.complete)


EMBEDDERS: Mapping[str, Dialect] = {
    "hf-inference": Dialect(
        route="/hf-inference/models/{model}/pipeline/feature-extraction",
        body=bodies.hf_inference,
        understands=frozenset({"normalize", "prompt_name", "dimensions", "truncate_left"}),
        token_vectors=True,
    ),
    "deepinfra": _embedder("/deepinfra/v1/openai/embeddings"),
    "scaleway": _embedder("/scaleway/v1/embeddings"),
    "together": _embedder("/together/v1/embeddings"),
}
COMPLETERS: Mapping[str, Form] = {
    "deepinfra": _completer("/deepinfra/v1/openai/completions"),
    "featherless-ai": _completer("/featherless-ai/v1/completions"),
    "novita": _completer("/novita/v3/openai/completions"),
    "together": _completer("/together/v1/completions"),
    "hf-inference": Form(
        route="/hf-inference/models/{model}",
        body=texts.tgi_root,
        wire_format=WireFormat.TGI,
        puts_prompt_before=True,
    ),
}
RANKERS: Mapping[str, Ranker] = {
    # Hugging Face's clients know no such task; this is how its own servers take it.
    "hf-inference": Ranker(route="/hf-inference/models/{model}/pipeline/text-ranking", body=sentence_ranking),
}
"""`{model}` is the provider's own name of the model."""

MAPPED_TASKS: Mapping[Task, Sequence[str]] = {
    Task.TEXT_EMBEDDING: ("feature-extraction", "sentence-similarity"),
    Task.RERANK: ("text-ranking", "text-classification"),
    Task.COMPLETION: ("text-generation",),
    Task.CHAT_COMPLETION: ("conversational",),
}
"""What the Hub calls each task where it says who serves a model."""
TABLES: Mapping[Task, Mapping[str, object]] = {
    Task.TEXT_EMBEDDING: EMBEDDERS,
    Task.RERANK: RANKERS,
    Task.COMPLETION: COMPLETERS,
}
"""The providers to which the gate can speak of each task; of conversations it is all."""
