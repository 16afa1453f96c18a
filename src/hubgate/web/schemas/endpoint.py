"""How an endpoint is written in JSON on the gate's own API; the CLI and the console read the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hubgate.domain.calls import InputType
from hubgate.domain.chunking import parse_chunking_settings
from hubgate.domain.endpoint import (
    DEFAULT_REQUESTS_PER_MINUTE,
    Endpoint,
    Engine,
    Precision,
    Similarity,
    Source,
    Task,
)
from hubgate.domain.errors import InvalidEndpoint, InvalidRequest
from hubgate.domain.secret import Secret
from hubgate.web.schemas.validation import fit, merged


class RateLimit(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An allowance."""

    requests_per_minute: int = DEFAULT_REQUESTS_PER_MINUTE
    tokens_per_minute: int | None = None
    max_concurrent_requests: int | None = None
    burst: int = 1


class EndpointForm(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What an operator sends to register an endpoint: see `hubgate.domain.endpoint.Endpoint` for the fields."""

    name: str
    task: Task = Task.TEXT_EMBEDDING
    source: Source | None = None
    model: str | None = None
    url: str | None = None
    token: str | None = None
    connection: str | None = None
    provider: str | None = None
    bill_to: str | None = None
    namespace: str | None = None
    engine: Engine | None = None
    similarity: Similarity | None = None
    dimensions: int | None = None
    max_input_tokens: int | None = None
    rate_limit: RateLimit = msgspec.field(default_factory=RateLimit)
    chunking_settings: dict[str, Any] | None = None
    prefixes: dict[InputType, str] | None = None
    cache: bool = True
    top_n: int | None = None
    return_documents: bool | None = None
    proxy: str | None = None
    ca_bundle: str | None = None
    timeout: float | None = None
    fallback: str | None = None
    enabled: bool = True
    precision: Precision = Precision.F32

    @classmethod
    def of(cls, endpoint: Endpoint) -> EndpointForm:
        """The form that makes this endpoint, without its token."""
        same = {name: getattr(endpoint, name) for name in _SAME}
        return cls(
            **same,
            rate_limit=RateLimit(**{name: getattr(endpoint, name) for name in RateLimit.__struct_fields__}),
            chunking_settings=endpoint.chunking.as_dict() if endpoint.chunking else None,
            cache=endpoint.cached,
        )

    def endpoint(self) -> tuple[Endpoint, Secret | None]:
        """The endpoint, and its token.

        Raises:
            InvalidEndpoint: its settings cannot be used.
        """
        source = self.source or self._source()
        if source in _WITHOUT_URL and self.url:
            raise InvalidRequest(
                f"A {_WITHOUT_URL[source]} endpoint has no URL.", remedy="Leave out url, or source."
            )
        _check_proxy(self.proxy)
        _check_payer(self.bill_to)
        same = {name: getattr(self, name) for name in _SAME if name != "source"}
        draft = Endpoint(
            **same,
            source=source,
            cached=self.cache,
            **msgspec.structs.asdict(self.rate_limit),
            chunking=parse_chunking_settings(self.chunking_settings) if self.chunking_settings else None,
        )
        return draft, Secret(self.token) if self.token else None

    def _source(self) -> Source:
        if self.url:
            return Source.DEDICATED
        return Source.ROUTER if self.provider else Source.LOCAL


_WITHOUT_URL = {Source.LOCAL: "local", Source.ROUTER: "hosted"}
_PAYER = re.compile(r"[\w.-]{1,96}", re.ASCII)
_SAME = (
    *("name", "task", "source", "model", "url", "connection", "provider", "bill_to", "namespace", "engine"),
    *("similarity", "dimensions", "max_input_tokens", "prefixes", "proxy", "ca_bundle", "timeout"),
    *("fallback", "enabled", "top_n", "return_documents", "precision"),
)
"""Fields that the form and the endpoint have alike."""


class Edited(msgspec.Struct, frozen=True):
    """An endpoint as an operator wants it from now on; without `keep_token` its token is `token`, or none."""

    endpoint: Endpoint
    token: Secret | None
    keep_token: bool


def edited(endpoint: Endpoint, given: Mapping[str, Any]) -> Edited:
    """An endpoint with some of its settings changed. What is absent stays; `null` brings the default back.

    Raises:
        InvalidRequest: a field is unknown or does not fit.
        InvalidEndpoint: the settings cannot be used.
    """
    if given.get("name", endpoint.name) != endpoint.name:
        raise InvalidRequest(
            "An endpoint keeps its name, for clients call it by that.",
            remedy="Clone it under the new name; then remove the old one.",
        )
    before = msgspec.to_builtins(EndpointForm.of(endpoint))
    after = merged(before, given, EndpointForm)
    limit = given.get("rate_limit")
    if isinstance(limit, dict):  # its numbers are changed one by one
        after["rate_limit"] = merged(before.get("rate_limit", {}), limit, RateLimit)
    changed, token = fit(after, EndpointForm).endpoint()
    return Edited(replace(changed, facts=endpoint.facts), token, keep_token="token" not in given)


def endpoint_json(endpoint: Endpoint, token_hint: str | None) -> dict[str, Any]:
    """An endpoint as it is shown: never its token, only the token's last characters."""
    facts = endpoint.facts
    shown: dict[str, Any] = {name: getattr(endpoint, name) for name in _SAME}
    shown |= {
        "token": token_hint,
        "tested": facts.engine is not None,
        "similarity": endpoint.similarity or Similarity.COSINE,
        "dimensions": facts.dimensions,
        "max_input_tokens": endpoint.token_limit,
        "rate_limit": _known({name: getattr(endpoint, name) for name in RateLimit.__struct_fields__})
        if endpoint.is_rate_limited
        else None,
        "prefixes": facts.prefixes if endpoint.prefixes is None else endpoint.prefixes,
        "cache": endpoint.cached,
        "precision": endpoint.precision if endpoint.source is Source.LOCAL else None,
        "chunking_settings": endpoint.chunking.as_dict() if endpoint.chunking else None,
        "facts": _known(msgspec.to_builtins(replace(facts, fingerprint=None))),
    }
    return _known(shown)


def _check_payer(bill_to: str | None) -> None:
    """It becomes a header."""
    if bill_to and not _PAYER.fullmatch(bill_to):
        raise InvalidEndpoint(
            "[bill_to] is no name of an organisation on the Hub.",
            remedy="Give the name as it stands in the address of its page.",
        )


def _check_proxy(proxy: str | None) -> None:
    if not proxy:
        return
    try:
        parts = urlsplit(proxy)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidEndpoint(
            "[proxy] is no URL of an HTTP proxy.",
            remedy="Give it whole, such as http://proxy.example.com:3128.",
        )
    if "@" in parts.netloc:
        raise InvalidEndpoint(
            "[proxy] holds a password, which would be stored and shown as it is.",
            remedy="Give a proxy that lets the gate in by its address.",
        )


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
