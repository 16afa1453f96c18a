"""The interfaces between layers: what the service needs from the layers below."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Protocol, TypeAlias

from hubgate.domain.calls import (
    CachedVector,
    Call,
    FreshVectors,
    Generated,
    GenerationCall,
    Result,
    WireFormat,
)
from hubgate.domain.diagnosis import Step
from hubgate.domain.endpoint import Endpoint, Facts, Target
from hubgate.domain.hub import Deployment, HubUser, ModelCard, ModelPrompts, ModelSearch
from hubgate.domain.secret import Secret


class Handler(Protocol):
    """Handles calls about texts. Every step of a pipeline is one.

    A step that only changes calls returns the coroutine of the next one, so that it adds none of its own.
    """

    def __call__(self, call: Call) -> Coroutine[Any, Any, Result]:
        """Raises: HubgateError, when it is awaited."""
        ...


class Upstream(Handler, Protocol):
    """The last handler of a pipeline: the model itself."""

    async def close(self) -> None:
        """Free connections and processes."""
        ...


class Events(Protocol):
    """A stream of generated text. Whoever opened it must close it, even if nothing was read.

    Each item is the payloads that arrived together: JSON objects in `wire_format`, without `data:` and `[DONE]`.
    If the stream fails, reading it raises `HubgateError`.
    """

    @property
    def wire_format(self) -> WireFormat: ...

    def __aiter__(self) -> AsyncIterator[Sequence[bytes]]: ...

    async def aclose(self) -> None:
        """End the stream and free its connection. Idempotent."""
        ...


class TextGenerator(Protocol):
    """A model that generates text."""

    async def generate(self, call: GenerationCall) -> Generated:
        """Return the complete reply. Raises: HubgateError."""
        ...

    async def stream(self, call: GenerationCall) -> Events:
        """Start a streamed reply: returns once the model's server has accepted the request. Raises: HubgateError."""
        ...

    async def close(self) -> None:
        """Free connections and processes."""
        ...


Model: TypeAlias = "Upstream | TextGenerator"
"""Which of the two depends on the endpoint's task."""


class Sources(Protocol):
    """Opens models, wherever they run."""

    @property
    def hugging_face(self) -> Sequence[str]:
        """The hosts of Hugging Face, including those from the settings: see `hubgate.domain.token_hosts`."""
        ...

    def token_route(self, endpoint: Endpoint) -> Sequence[str]:
        """The origins that an endpoint's token is sent to: its server, and its proxy.

        Raises:
            InvalidEndpoint: its URL is invalid.
        """
        ...

    async def detect(self, target: Target) -> Facts:
        """Detect the engine and the model, if possible without running the model.

        Raises:
            HubgateError: the server is unreachable or unknown.
        """
        ...

    async def read_prompts(self, target: Target) -> ModelPrompts:
        """The prompts in the files of an endpoint's model. Takes a few seconds at most.

        Raises:
            HubgateError: the model is not known, or its files cannot be read.
        """
        ...

    async def added_prompt(self, target: Target) -> str:
        """The prompt that the endpoint's server adds to every text itself; empty if none is found. Never fails."""
        ...

    def reach(self, endpoint: Endpoint) -> AsyncIterator[Step]:
        """Connect to where the endpoint runs without sending a request; yields each completed step.

        Raises:
            HubgateError: the next step failed.
        """
        ...

    async def runs(self, target: Target) -> bool:
        """Whether its server is known to be running. Never contacts the server, which would wake it."""
        ...

    def open(self, target: Target) -> Upstream:
        """Open a model for calls about texts. The endpoint's facts must be known. Does no I/O."""
        ...

    def open_generator(self, target: Target) -> TextGenerator:
        """Open a model that generates text. The endpoint's facts must be known. Does no I/O.

        Raises:
            InvalidEndpoint: the engine does not generate text.
        """
        ...

    async def close(self) -> None:
        """Free what all upstreams share."""
        ...


class Counter(Protocol):
    """A model's tokenizer, run by hubgate, for counting tokens."""

    async def __call__(self, texts: Sequence[str], limit: int | None) -> Sequence[int] | None:
        """The token count of each text, untruncated and including special tokens; `None` if counting failed.

        A count above `limit` only means that it is exceeded.
        """
        ...


class Counters(Protocol):
    """Provides the token counter of each model."""

    async def learn(self, target: Target) -> Facts:
        """Fetch the tokenizer of an endpoint, and return the facts with what was learned.

        Takes a few seconds at most and never fails: without a tokenizer, the facts say so.
        """
        ...

    def open(self, endpoint: Endpoint) -> Counter | None:
        """The counter of an endpoint, if there is one. Does no I/O."""
        ...


class Hub(Protocol):
    """Hugging Face's APIs, for finding models. Nothing else depends on them.

    Only the given tokens are used, never one of the environment. Every method raises `UpstreamError` if a request
    fails.
    """

    async def search(self, wanted: ModelSearch, token: Secret | None) -> Sequence[ModelCard]:
        """Models for a task that hubgate supports, trending first. Cached for minutes.

        Raises:
            InvalidRequest: the limit is out of range.
        """
        ...

    async def model(self, name: str, token: Secret | None) -> ModelCard:
        """A model by name or link, with details from its files. Cached for minutes.

        Raises:
            InvalidRequest: the name is invalid.
            NotFound: there is no such model, or the token may not access it.
        """
        ...

    async def whoami(self, token: Secret) -> HubUser:
        """The owner and the permissions of a token. Cached for minutes."""
        ...

    async def deployments(self, namespace: str | None, token: Secret) -> Sequence[Deployment]:
        """The Inference Endpoints of a user or organization; without one, all that the token can access.

        Raises:
            InvalidRequest: the namespace is invalid.
        """
        ...

    async def close(self) -> None: ...


class Clock(Protocol):
    """A monotonic clock in seconds."""

    def __call__(self) -> float: ...


class VectorCache(Protocol):
    """Vectors by key. A key is 32 bytes, a digest of everything that determines the vector."""

    @property
    def is_near(self) -> bool:
        """Whether vectors can be read at once after `put`."""
        ...

    async def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, CachedVector]:
        """The entries that exist. Raises: StoreFailed."""
        ...

    def put(self, fresh: FreshVectors) -> None:
        """Add entries, evicting the oldest if the cache is full. A failure loses only them."""
        ...


class VectorStore(VectorCache, Protocol):
    """The part of the vector cache that survives a restart."""

    @property
    def place(self) -> str:
        """`disk` or `shared`."""
        ...

    @property
    def name(self) -> str:
        """The file or the server, for people."""
        ...

    @property
    def counts(self) -> Mapping[str, int]:
        """Since the start: `hits` and `misses` of texts that were not in memory, and `dropped` vectors."""
        ...

    async def stats(self) -> Mapping[str, Any]:
        """Its counts and its size."""
        ...

    async def clear(self) -> None:
        """Raises: StoreFailed."""
        ...

    async def close(self) -> None:
        """Write pending entries and close the file or the connection."""
        ...


class Notes(Protocol):
    """Small values that survive a restart. Both methods raise `StoreFailed`."""

    async def note(self, name: str) -> str | None: ...

    async def set_note(self, name: str, value: str) -> None: ...


class SharedFiles(Protocol):
    """Files that gateways of one database share, by name. All methods raise `StoreFailed`."""

    async def names(self) -> AbstractSet[str]: ...

    async def read(self, name: str) -> bytes | None: ...

    async def add(self, name: str, content: bytes) -> None:
        """Store a file. One that exists stays."""
        ...
