"""Gateway keys: who may call the gate."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A gateway key as it is stored. Times are seconds since the epoch."""

    id: str
    name: str
    digest: bytes = field(repr=False)
    """SHA-256 of the key, which is never stored."""
    created_at: float
    last_used_at: float | None = None
    admin: bool = False
    default_endpoint: str | None = None
