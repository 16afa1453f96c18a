"""Gateway keys: who may call the gate."""

from __future__ import annotations

from dataclasses import dataclass, field

from hubgate.domain.calls import InputType


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
    bulk: bool = False
    """Its calls wait behind those of interactive keys."""
    input_type: InputType | None = None
    """What its texts are for, when a call does not say."""
    endpoints: tuple[str, ...] = ()
    """The only ones that it may call; empty for all."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    expires_at: float | None = None

    def may_call(self, endpoint: str) -> bool:
        """Whether an endpoint is in its scope."""
        return not self.endpoints or endpoint in self.endpoints
