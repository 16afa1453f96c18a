"""The JSON of endpoints in `/api`, also used by the console and by YAML configurations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import msgspec

from hubgate.domain.chunking import parse_chunking_settings
from hubgate.domain.endpoint import Endpoint, Facts, Similarity, Source, Task
from hubgate.domain.endpoint_fields import FIELDS, PUBLIC_FIELDS, EndpointField
from hubgate.domain.errors import InvalidEndpoint, InvalidRequest
from hubgate.domain.secret import Secret
from hubgate.web.schemas.validation import convert, merge

_PLAIN_FIELDS = tuple(
    field.name for field in PUBLIC_FIELDS if field.stored_as is None and not field.in_rate_limit
)
"""Fields whose value in JSON is that of the attribute of the same name."""
_RATE_LIMIT_FIELDS = tuple(field.name for field in FIELDS if field.in_rate_limit)


def _define(field: EndpointField) -> tuple[str, Any] | tuple[str, Any, Any]:
    """A field of a struct, with the type and default of the endpoint's attribute."""
    required = field.default is MISSING
    return (field.name, field.type) if required else (field.name, field.type, field.default)


RateLimit: Any = msgspec.defstruct(
    "RateLimit",
    [_define(field) for field in FIELDS if field.in_rate_limit],
    forbid_unknown_fields=True,
    omit_defaults=True,
    namespace={"__doc__": "The limits of the model's server."},
)
_OTHER_TYPES: dict[str, tuple[Any, Any]] = {
    "task": (Task, Task.TEXT_EMBEDDING),
    "source": (Source | None, None),
    "token": (str | None, None),
    "chunking_settings": (dict[str, Any] | None, None),
}


def _form_fields() -> list[Any]:
    """The fields of the form; `rate_limit` takes the place of the first of its own."""
    found: dict[str, Any] = {}
    for field in FIELDS:
        if field.in_rate_limit:
            found["rate_limit"] = ("rate_limit", RateLimit, msgspec.field(default_factory=RateLimit))
        elif field.name in _OTHER_TYPES:
            found[field.name] = (field.name, *_OTHER_TYPES[field.name])
        else:
            found[field.name] = _define(field)
    return list(found.values())


if TYPE_CHECKING:

    class _Fields(msgspec.Struct):
        """What mypy can know of a struct made from a table."""

        def __init__(self, **values: object) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
else:
    _Fields = msgspec.defstruct("_Fields", _form_fields(), kw_only=True)


class EndpointForm(_Fields, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The settings of an endpoint; only `name` is required."""

    REMOVED: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("wake", "wake_hours", "idle_minutes", "ends_at"),
        "hubgate no longer pauses or wakes Inference Endpoints on a schedule; remove the field, and set [zero_after] of "
        "the Inference Endpoint instead (`hubgate deploy edit NAME --min 0 --zero-after MINUTES`).",
    )
    """What to do instead of sending a field that there was."""

    @classmethod
    def of(cls, endpoint: Endpoint) -> EndpointForm:
        """The form that describes this endpoint, without its token."""
        return cls(
            **_plain(endpoint),
            rate_limit=RateLimit(**{name: getattr(endpoint, name) for name in _RATE_LIMIT_FIELDS}),
            chunking_settings=endpoint.chunking.as_dict() if endpoint.chunking else None,
            cache=endpoint.cached,
        )

    def endpoint(self) -> tuple[Endpoint, Secret | None]:
        """The endpoint and its token.

        Raises:
            InvalidEndpoint: the settings are not valid.
        """
        source = self.source or self._default_source()
        if source in _WITHOUT_URL and (self.url or self.urls):
            raise InvalidRequest(
                f"A {_WITHOUT_URL[source]} endpoint cannot have a URL.", remedy="Remove url or source."
            )
        _check_proxy(self.proxy)
        _check_bill_to(self.bill_to)
        if source is Source.DEDICATED and self.provider and not self.model:
            raise InvalidRequest(
                "A hosted replica requires a model.",
                remedy="Send [model], its name on the Hub, or no [provider].",
            )
        settings = {name: getattr(self, name) for name in _PLAIN_FIELDS} | {"source": source} | self._urls()
        draft = Endpoint(
            **settings,
            cached=self.cache,
            **msgspec.structs.asdict(self.rate_limit),
            chunking=parse_chunking_settings(self.chunking_settings) if self.chunking_settings else None,
        )
        return draft, Secret(self.token) if self.token else None

    def _urls(self) -> dict[str, Any]:
        """The first URL, and all if there are several."""
        if not self.urls:
            return {}
        if self.url not in (None, self.urls[0]):
            raise InvalidRequest("[url] is not the first of [urls].", remedy="Send only one of the two.")
        return {"url": self.urls[0], "urls": self.urls if len(self.urls) > 1 else ()}

    def _default_source(self) -> Source:
        if self.url or self.urls:
            return Source.DEDICATED
        return Source.ROUTER if self.provider else Source.LOCAL


_INTERNAL_FACTS = frozenset({"fingerprint", "scores", "replicas"})
_WITHOUT_URL = {Source.LOCAL: "local", Source.ROUTER: "hosted"}
_ORGANIZATION = re.compile(r"[\w.-]{1,96}", re.ASCII)


class EndpointEdit(msgspec.Struct, frozen=True):
    """A changed endpoint. Unless `keep_token` is set, `token` replaces its token; `None` removes it."""

    endpoint: Endpoint
    token: Secret | None
    keep_token: bool


def edit_endpoint(endpoint: Endpoint, changes: Mapping[str, Any]) -> EndpointEdit:
    """Change some settings of an endpoint. Absent fields stay; `null` restores the default.

    Raises:
        InvalidRequest: a field is unknown or has the wrong type.
        InvalidEndpoint: the settings are not valid.
    """
    if changes.get("name", endpoint.name) != endpoint.name:
        raise InvalidRequest(
            "The name of an endpoint cannot be changed, because clients call it by that name.",
            remedy="Clone it under the new name, then remove the old one.",
        )
    before = msgspec.to_builtins(EndpointForm.of(endpoint))
    if "url" in changes or "urls" in changes:  # one replaces the other
        before = {name: value for name, value in before.items() if name not in {"url", "urls"}}
    after = merge(before, changes, EndpointForm)
    limit = changes.get("rate_limit")
    if isinstance(limit, dict):  # its numbers can be changed one by one
        after["rate_limit"] = merge(before.get("rate_limit", {}), limit, RateLimit)
    changed, token = convert(after, EndpointForm).endpoint()
    return EndpointEdit(replace(changed, facts=endpoint.facts), token, keep_token="token" not in changes)


def endpoint_json(endpoint: Endpoint, token_hint: str | None) -> dict[str, Any]:
    """An endpoint in JSON, with the last characters of its token instead of the token."""
    facts = endpoint.facts
    shown: dict[str, Any] = _plain(endpoint)
    shown |= {
        "urls": endpoint.urls or None,
        "token": token_hint,
        "tested": facts.engine is not None,
        "similarity": endpoint.similarity or Similarity.COSINE,
        "dimensions": facts.dimensions,
        "max_input_tokens": endpoint.token_limit,
        "rate_limit": _known({name: getattr(endpoint, name) for name in _RATE_LIMIT_FIELDS})
        if endpoint.is_rate_limited
        else None,
        "prefixes": endpoint.effective_prefixes,
        "prefix_sources": endpoint.prefix_sources or None,
        "cache": endpoint.cached,
        "precision": endpoint.precision if endpoint.source is Source.LOCAL else None,
        "chunking_settings": endpoint.chunking.as_dict() if endpoint.chunking else None,
        "facts": _facts_json(facts),
    }
    return _known(shown)


def _plain(endpoint: Endpoint) -> dict[str, Any]:
    """The settings with the same name and value in JSON; `url`, or `urls` if there are several."""
    values = {name: getattr(endpoint, name) for name in _PLAIN_FIELDS}
    return values | {"url": None} if endpoint.urls else values


def _facts_json(facts: Facts) -> dict[str, Any]:
    """Facts for people; those of each replica are with its state."""
    shown = msgspec.to_builtins(facts)
    return _known({name: value for name, value in shown.items() if name not in _INTERNAL_FACTS})


def _check_bill_to(bill_to: str | None) -> None:
    if bill_to and not _ORGANIZATION.fullmatch(bill_to):  # it is sent as a header
        raise InvalidEndpoint(
            "[bill_to] is not a valid organization name.",
            remedy="Use the name in the URL of its page on the Hub.",
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
            "[proxy] is not a valid URL of an HTTP proxy.",
            remedy="Use a full URL, such as http://proxy.example.com:3128.",
        )
    if "@" in parts.netloc:
        raise InvalidEndpoint(
            "[proxy] contains a password, which would be stored and shown in plain text.",
            remedy="Use a proxy that allows the gateway by its IP address.",
        )


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
