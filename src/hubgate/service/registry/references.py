"""Who uses what: asked before something is removed."""

from __future__ import annotations

from collections.abc import Iterable

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.records import Key


def users_of(name: str, endpoints: Iterable[Endpoint], keys: Iterable[Key]) -> list[str]:
    """What names this endpoint: keys by their scope or as their default, endpoints as their fallback."""
    return [
        *(f"key {key.name}" for key in keys if name in (*key.endpoints, key.default_endpoint)),
        *(f"endpoint {endpoint.name}" for endpoint in endpoints if endpoint.fallback == name),
    ]
