"""The settings of an endpoint, one row each.

The command line's options, the JSON of `/api`, the YAML of a configuration, the console's form, and whether a change
needs a new test of the model all come from this table. A row's type and default are those of the attribute of
`Endpoint` that it sets.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Source, Task

_EMBEDDING = frozenset({Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING})
_REMOTE = frozenset({Source.ROUTER, Source.DEDICATED})


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointField:
    """One setting."""

    name: str
    """In JSON, YAML and forms; with hyphens, on the command line."""
    help: str | None = None
    """Of the command-line option; `None` if there is none."""
    stored_as: str | None = None
    """The attribute of `Endpoint`, if it has another name."""
    in_rate_limit: bool = False
    """Whether JSON and YAML hold it in the object `rate_limit`."""
    is_cosmetic: bool = False
    """Whether a change can neither change what the model returns nor make it unreachable."""
    is_secret: bool = False
    """Never shown, and stored apart from the endpoint."""
    sources: frozenset[Source] = frozenset(Source)
    tasks: frozenset[Task] = frozenset(Task)

    @property
    def attribute(self) -> str:
        return self.stored_as or self.name

    @property
    def type(self) -> Any:
        """Of the attribute."""
        return _TYPES[self.attribute]

    @property
    def base_type(self) -> Any:
        """The type of a value that is not `None`."""
        return next((kind for kind in get_args(self.type) if kind is not type(None)), self.type)

    @property
    def default(self) -> Any:
        """Of the attribute; `dataclasses.MISSING` if it is required."""
        return _DEFAULTS[self.attribute]


_TYPES = get_type_hints(Endpoint)
_DEFAULTS = {each.name: each.default for each in fields(Endpoint)}

FIELDS = (
    EndpointField(name="name"),
    EndpointField(
        name="task",
        help="What the model does: text_embedding (the default), sparse_embedding, rerank, completion, chat_completion.",
    ),
    EndpointField(name="source"),
    EndpointField(
        name="model",
        help="The model at the URL, by the server's name for it or its name on the Hub.",
        sources=frozenset(Source) - {Source.FAKE},
    ),
    EndpointField(
        name="hub_model",
        help="The model's name on the Hub, if the server has another name for it.",
        sources=frozenset({Source.DEDICATED}),
    ),
    EndpointField(
        name="url",
        help="URL of an Inference Endpoint or any compatible server. Repeat it for replicas of one model.",
        sources=frozenset({Source.DEDICATED}),
    ),
    EndpointField(name="urls", sources=frozenset({Source.DEDICATED})),
    EndpointField(name="token", is_secret=True),
    EndpointField(name="connection", help="Name of the stored token to use."),
    EndpointField(
        name="provider",
        help="For a hosted model: auto, a provider's name, or a policy. With --url, a hosted replica.",
        sources=_REMOTE,
    ),
    EndpointField(
        name="bill_to",
        help="The organization to bill for a hosted model.",
        sources=_REMOTE,
    ),
    EndpointField(
        name="namespace",
        help="The user or organization that owns the Inference Endpoint.",
        is_cosmetic=True,
        sources=frozenset({Source.DEDICATED}),
    ),
    EndpointField(
        name="engine",
        help="The server at the URL, if detection fails.",
        sources=frozenset({Source.DEDICATED}),
    ),
    EndpointField(
        name="similarity",
        help="cosine, dot_product or l2_norm.",
        is_cosmetic=True,
        tasks=frozenset({Task.TEXT_EMBEDDING}),
    ),
    EndpointField(name="dimensions", help="Expected length of the vectors.", tasks=_EMBEDDING),
    EndpointField(
        name="min_dimensions",
        help="Fewest dimensions that calls may shorten vectors to, if the model was trained for it (Matryoshka).",
        is_cosmetic=True,
        tasks=frozenset({Task.TEXT_EMBEDDING}),
    ),
    EndpointField(name="max_input_tokens", help="Max tokens per input, if the server does not report it."),
    EndpointField(
        name="requests_per_minute", help="Rate limit (default: 3000).", in_rate_limit=True, is_cosmetic=True
    ),
    EndpointField(
        name="tokens_per_minute", help="Rate limit in tokens, if any.", in_rate_limit=True, is_cosmetic=True
    ),
    EndpointField(
        name="max_concurrent_requests",
        help="Max requests in flight. hubgate adapts the number below it.",
        in_rate_limit=True,
        is_cosmetic=True,
    ),
    EndpointField(
        name="burst",
        help="Requests that may be sent together after a pause (default: 1).",
        in_rate_limit=True,
        is_cosmetic=True,
    ),
    EndpointField(
        name="max_batch_texts",
        help="Max texts per request, if less than the server accepts.",
        is_cosmetic=True,
        sources=_REMOTE,
        tasks=frozenset(Task) - GENERATION_TASKS,
    ),
    EndpointField(
        name="chunking_settings",
        help="chunking_settings as in Elasticsearch, in JSON.",
        stored_as="chunking",
        is_cosmetic=True,
        tasks=_EMBEDDING,
    ),
    EndpointField(name="prefixes", tasks=_EMBEDDING),
    EndpointField(name="prompt_names", tasks=frozenset({Task.TEXT_EMBEDDING})),
    EndpointField(
        name="cache",
        help="Whether to cache vectors.",
        stored_as="cached",
        is_cosmetic=True,
        tasks=_EMBEDDING,
    ),
    EndpointField(name="top_n", is_cosmetic=True, tasks=frozenset({Task.RERANK})),
    EndpointField(name="return_documents", is_cosmetic=True, tasks=frozenset({Task.RERANK})),
    EndpointField(
        name="instruction",
        help="What makes a text relevant, for a reranker that follows instructions.",
        tasks=frozenset({Task.RERANK}),
    ),
    EndpointField(name="proxy", help="HTTP proxy between hubgate and the server.", sources=_REMOTE),
    EndpointField(
        name="ca_bundle",
        help="File of CA certificates to verify the server against.",
        sources=_REMOTE,
    ),
    EndpointField(name="timeout", help="Timeout of one request, in seconds.", is_cosmetic=True),
    EndpointField(name="fallback", help="The endpoint that answers when this one cannot.", is_cosmetic=True),
    EndpointField(name="enabled", is_cosmetic=True),
    EndpointField(
        name="precision",
        help="For a local model: f32, bf16, int8 or auto.",
        sources=frozenset({Source.LOCAL}),
    ),
)
"""In the order in which JSON and YAML hold them."""

PUBLIC_FIELDS = tuple(field for field in FIELDS if not field.is_secret)
IDENTITY = tuple(field.attribute for field in PUBLIC_FIELDS if not field.is_cosmetic)
"""Attributes of `Endpoint` that decide what the model is or how it is reached."""


def changes_model(old: Endpoint, new: Endpoint) -> bool:
    """Whether a setting differs that may change the model or how it is reached."""
    return any(getattr(old, name) != getattr(new, name) for name in IDENTITY)
