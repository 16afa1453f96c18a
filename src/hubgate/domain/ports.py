"""The shapes between floors: what the service needs from below, without knowing how it is done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from hubgate.domain.calls import CachedVector, Call, Generated, GenerationCall, Result, WireFormat
from hubgate.domain.diagnosis import Step
from hubgate.domain.endpoint import Endpoint, Facts, Target
from hubgate.domain.hub import Deployment, HubUser, ModelCard, ModelSearch
from hubgate.domain.records import AuditLog, ConnectionStore, Key, UsageStore
from hubgate.domain.secret import Secret


class Handler(Protocol):
    """A call goes in, its result comes out: the one shape between a face and a model."""

    async def __call__(self, call: Call) -> Result:
        """Answer one call.

        Raises:
            HubgateError: it cannot be answered.
        """
        ...


class Upstream(Handler, Protocol):
    """The last answer: the model itself."""

    async def close(self) -> None:
        """Free what is held: connections, a process."""
        ...


class Events(Protocol):
    """Generated text as it comes. Who opened it closes it, also when nothing was read of it.

    Each item is the payloads (JSON objects, in the wire_format, without `data:` and without `[DONE]`) that arrived
    together. A failure in the middle is raised while it is read: it is a `HubgateError`.
    """

    @property
    def wire_format(self) -> WireFormat:
        """How the payloads are written."""
        ...

    def __aiter__(self) -> AsyncIterator[Sequence[bytes]]:
        """The payloads, as they arrive."""
        ...

    async def aclose(self) -> None:
        """End it, and free what it holds; a second time does nothing."""
        ...


class TextGenerator(Protocol):
    """A model that generates text."""

    async def generate(self, call: GenerationCall) -> Generated:
        """Return the whole reply.

        Raises:
            HubgateError: the call failed.
        """
        ...

    async def stream(self, call: GenerationCall) -> Events:
        """Start a streamed reply: returns once the model's server has accepted the request.

        Raises:
            HubgateError: the call failed.
        """
        ...

    async def close(self) -> None:
        """Free connections and processes."""
        ...


Model: TypeAlias = "Upstream | TextGenerator"
"""The task of an endpoint says which of them it is."""


class Sources(Protocol):
    """How models are reached."""

    @property
    def hugging_face(self) -> Sequence[str]:
        """The hosts of Hugging Face, those that the settings name included: see `hubgate.domain.token_hosts`."""
        ...

    def token_route(self, endpoint: Endpoint) -> Sequence[str]:
        """The origins that an endpoint's token is sent to: its server's, and its proxy's.

        Raises:
            InvalidEndpoint: its URL cannot be used.
        """
        ...

    async def detect(self, target: Target) -> Facts:
        """Ask where the endpoint runs what it is. No model work, except where there is no other way.

        Raises:
            HubgateError: unreachable, or not a server that is known; says why and what to do.
        """
        ...

    def reach(self, endpoint: Endpoint) -> AsyncIterator[Step]:
        """Go the way to where the endpoint runs, without asking anything there: each step once it is done.

        Raises:
            HubgateError: the next step fails.
        """
        ...

    async def runs(self, target: Target) -> bool:
        """Whether its server is known to run, so that no question wakes it; never asks the server itself."""
        ...

    def open(self, target: Target) -> Upstream:
        """The upstream of an endpoint whose facts are known, for a task about texts. Does no I/O."""
        ...

    def open_generator(self, target: Target) -> TextGenerator:
        """The same for an endpoint whose task is to write.

        Raises:
            InvalidEndpoint: nothing there writes.
        """
        ...

    async def close(self) -> None:
        """Free what all upstreams share."""
        ...


class Counter(Protocol):
    """Counts tokens as a model does, without asking it."""

    async def __call__(self, texts: Sequence[str], limit: int | None) -> Sequence[int] | None:
        """The tokens of each text, uncut and special ones included; `None` where they cannot be counted.

        Beyond `limit` a number only says that it is exceeded.
        """
        ...


class Counters(Protocol):
    """What counts the tokens of each model."""

    async def learn(self, target: Target) -> Facts:
        """Get what it takes to count for an endpoint whose facts are known, once; its facts with what was learned.

        Takes a few seconds at most and never fails: without it, the facts say so.
        """
        ...

    def open(self, endpoint: Endpoint) -> Counter | None:
        """The counter of an endpoint; `None` if there is none. Does no I/O."""
        ...


class Hub(Protocol):
    """Hugging Face's own interfaces: what is there to be registered, and what a token may do.

    Nothing else needs it. Tokens are those that are given, never one of the environment. Every method raises
    `UpstreamError` when it is not reached or refuses, with its cause and when to ask again.
    """

    async def search(self, wanted: ModelSearch, token: Secret | None) -> Sequence[ModelCard]:
        """Models that do one of the gate's tasks, trending first; remembered for minutes.

        Raises:
            InvalidRequest: the limit is out of range.
        """
        ...

    async def model(self, name: str, token: Secret | None) -> ModelCard:
        """One model, by its name or a link to it, with what its files tell; remembered for minutes.

        Raises:
            InvalidRequest: this can be no name.
            NotFound: there is no such model, or the token may not see it.
        """
        ...

    async def whoami(self, token: Secret) -> HubUser:
        """Whose a token is, and what it may do; remembered for minutes."""
        ...

    async def deployments(self, namespace: str | None, token: Secret) -> Sequence[Deployment]:
        """The Inference Endpoints of a user or an organisation; without one, all that the token may see.

        Raises:
            InvalidRequest: this can be no namespace.
        """
        ...

    async def resume(self, namespace: str, name: str, token: Secret) -> Deployment:
        """Wake a paused Inference Endpoint; how it is now.

        Raises:
            InvalidRequest: these can be no names.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class Clock(Protocol):
    """Seconds that never go back."""

    def __call__(self) -> float:
        """Now."""
        ...


class VectorCache(Protocol):
    """Vectors remembered by key; a key is 32 bytes, a digest of all that shapes the vector.

    Both methods raise `StoreFailed` when what is behind them cannot be used.
    """

    async def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, CachedVector]:
        """Those that are remembered."""
        ...

    async def put_many(self, vectors: Mapping[bytes, CachedVector]) -> None:
        """Remember these; the oldest go when there is no room."""
        ...


class VectorDisk(VectorCache, Protocol):
    """The part of the vector cache that survives a restart."""

    async def stats(self) -> Mapping[str, int]:
        """What it holds, and how often it helped."""
        ...

    async def clear(self) -> None:
        """Forget everything.

        Raises:
            StoreFailed: it cannot be cleared.
        """
        ...

    async def give_way(self) -> None:
        """Free the disk, which is full."""
        ...

    async def close(self) -> None:
        """Write what is waiting, and let go."""
        ...


class Notes(Protocol):
    """Small facts about this gateway that survive a restart.

    Both methods raise `StoreFailed` when the database cannot be used.
    """

    async def note(self, name: str) -> str | None:
        """The fact of this name, if there is one."""
        ...

    async def set_note(self, name: str, value: str) -> None:
        """Remember a fact."""
        ...


class Store(Notes, Protocol):
    """What survives a restart. Tokens go in and come out open; they are sealed at rest.

    Every method raises `StoreFailed` when the database cannot be used.
    """

    @property
    def connections(self) -> ConnectionStore:
        """Named tokens."""
        ...

    @property
    def usage(self) -> UsageStore:
        """How much endpoints were used."""
        ...

    @property
    def audit(self) -> AuditLog:
        """Who changed what."""
        ...

    async def endpoints(self) -> Sequence[Target]:
        """All endpoints, each with its own token; one that uses a connection has none."""
        ...

    async def add_endpoint(self, target: Target) -> None:
        """Store a new endpoint.

        Raises:
            EndpointExists: the name is taken.
        """
        ...

    async def save_endpoint(self, target: Target) -> None:
        """Replace the endpoint of this name, and its token."""
        ...

    async def remove_endpoint(self, name: str) -> None:
        """Forget an endpoint and its token."""
        ...

    async def keys(self) -> Sequence[Key]:
        """All gateway keys that are not revoked."""
        ...

    async def add_key(self, key: Key) -> None:
        """Store a new gateway key."""
        ...

    async def save_key(self, key: Key) -> None:
        """Replace the gateway key of this id.

        Raises:
            InvalidRequest: its new name is taken.
        """
        ...

    async def remove_key(self, key_id: str) -> None:
        """Revoke a gateway key."""
        ...

    async def touch_keys(self, last_used: Mapping[str, float]) -> None:
        """Write down when keys were last used, seconds since the epoch by key id."""
        ...

    async def reseal(self) -> int:
        """Seal every token under the newest secret key; how many were re-sealed."""
        ...

    async def rotate_secret(self) -> int:
        """Make a new secret key, unless a rotation was begun, and seal every token under it; how many.

        Raises:
            StoreFailed: a new key is needed, and the operator has to give it; says how.
        """
        ...
