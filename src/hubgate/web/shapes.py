"""How an endpoint is written in JSON on the gate's own API; the CLI and the console read the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from hubgate.domain.calls import InputType
from hubgate.domain.chunking import parse_chunking_settings
from hubgate.domain.endpoint import DEFAULT_REQUESTS_PER_MINUTE, Endpoint, Engine, Similarity, Source, Task
from hubgate.domain.errors import InvalidRequest
from hubgate.domain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping


class RateLimit(msgspec.Struct, forbid_unknown_fields=True):
    """An allowance."""

    requests_per_minute: int = DEFAULT_REQUESTS_PER_MINUTE
    tokens_per_minute: int | None = None
    max_concurrent_requests: int | None = None
    burst: int = 1


class EndpointForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What an operator sends to register an endpoint."""

    name: str
    task: Task = Task.TEXT_EMBEDDING
    source: Source | None = None
    model: str | None = None
    url: str | None = None
    token: str | None = None
    engine: Engine | None = None
    similarity: Similarity | None = None
    dimensions: int | None = None
    max_input_tokens: int | None = None
    rate_limit: RateLimit = msgspec.field(default_factory=RateLimit)
    chunking_settings: dict[str, Any] | None = None
    prefixes: dict[InputType, str] | None = None
    cache: bool = True

    def endpoint(self) -> tuple[Endpoint, Secret | None]:
        """The endpoint, and its token.

        Raises:
            InvalidEndpoint: its settings cannot be used.
        """
        source = self.source or (Source.DEDICATED if self.url else Source.LOCAL)
        if source is Source.LOCAL and self.url:
            raise InvalidRequest("A local endpoint has no URL.", remedy="Leave out url, or source.")
        draft = Endpoint(
            name=self.name,
            task=self.task,
            source=source,
            model=self.model,
            url=self.url,
            engine=self.engine,
            similarity=self.similarity,
            dimensions=self.dimensions,
            max_input_tokens=self.max_input_tokens,
            prefixes=self.prefixes,
            cached=self.cache,
            **msgspec.structs.asdict(self.rate_limit),
            chunking=parse_chunking_settings(self.chunking_settings),
        )
        return draft, Secret(self.token) if self.token else None


def endpoint_json(endpoint: Endpoint, token_hint: str | None) -> dict[str, Any]:
    """An endpoint as it is shown: never its token, only the token's last characters."""
    shown: dict[str, Any] = {
        "name": endpoint.name,
        "task": endpoint.task,
        "source": endpoint.source,
        "model": endpoint.model,
        "url": endpoint.url,
        "engine": endpoint.engine,
        "token": token_hint,
        "similarity": endpoint.similarity or Similarity.COSINE,
        "dimensions": endpoint.facts.dimensions,
        "max_input_tokens": endpoint.max_input_tokens or endpoint.facts.max_input_tokens,
        "rate_limit": _known({name: getattr(endpoint, name) for name in RateLimit.__struct_fields__}),
        "prefixes": endpoint.facts.prefixes if endpoint.prefixes is None else endpoint.prefixes,
        "cache": endpoint.cached,
        "chunking_settings": endpoint.chunking.as_dict(),
        "facts": _known(msgspec.to_builtins(replace(endpoint.facts, fingerprint=None))),
    }
    return _known(shown)


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
