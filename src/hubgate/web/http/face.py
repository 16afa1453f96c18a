"""A face: one API dialect, declared in one place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from starlette.routing import BaseRoute

from hubgate.domain.errors import HubgateError
from hubgate.domain.ports import Hub
from hubgate.service.gateway import Gateway
from hubgate.service.inference.vector_cache import VectorMemory
from hubgate.service.keys.access import Access
from hubgate.service.shared_values import SharedValues
from hubgate.web.schemas.configuration import Configuration

if TYPE_CHECKING:
    from hubgate.web.parts import Parts

RenderError: TypeAlias = Callable[[HubgateError, int], tuple[int, object]]
"""Returns status and JSON body of an error; its arguments are the error and hubgate's own status for it."""

MAX_REMEMBERED_PATH = 200
"""What was found for a path is remembered, unless the path is longer."""

Handler: TypeAlias = Callable[..., Awaitable[None]]
"""Gets the scope, the body and `send`; the path's parameters are keyword arguments.

With a large body it is called in a thread, so one that reads its body in Python, not only with a decoder, does so before
it returns what is awaited.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What handlers are built from."""

    gateway: Gateway
    access: Access
    memory: VectorMemory | None
    hub: Hub
    configuration: Configuration
    parts: Parts
    """Of all features."""
    cookie_keys: Sequence[bytes] = ()
    """Of the console: the first signs, all are accepted. None for a random one."""
    shared: SharedValues = field(default_factory=SharedValues)


class InferenceRoute(NamedTuple):
    """A POST that calls a model.

    It counts against the key's limits, is found in dictionaries and served without Starlette: inference is the hot path.
    """

    path: str
    """`/embed`, or `/hf/{name}/embed`. A parameter matches one segment that does not start with an underscore."""
    handler: Handler
    is_slow: bool = False
    """Whether Python converts each item of the body. A thread then reads bodies of more than 256 KiB, else of 1 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One API dialect."""

    name: str
    """In logs and metrics."""
    owns: Callable[[Sequence[str], bool], bool]
    """Whether a path belongs to this face; gets the first three segments (the third with the rest), and whether the
    client is Hugging Face's."""
    render_error: RenderError
    routes: Callable[[Services], Sequence[BaseRoute | InferenceRoute]] = lambda _: ()
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Added to every response."""


class FaceFinder:
    """Finds the face of a request."""

    def __init__(self, faces: Sequence[Face]) -> None:
        self._faces = faces
        self._remembered = lru_cache(maxsize=1024)(self._find)

    def find(self, path: str, is_hugging_face: bool = False) -> Face:
        """The first face that owns the path, or the last one: even an unknown path gets an error in a known dialect."""
        find = self._remembered if len(path) <= MAX_REMEMBERED_PATH else self._find
        return find(path, is_hugging_face)

    def _find(self, path: str, is_hugging_face: bool) -> Face:
        segments = path.split("/", 3)[1:] if path.startswith("/") else ("",)
        return next((face for face in self._faces if face.owns(segments, is_hugging_face)), self._faces[-1])


def is_hugging_face_client(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the client is huggingface_hub or @huggingface/inference."""
    agent = headers.get(b"user-agent", b"")
    return b"hf_hub/" in agent or b"@huggingface/" in agent


def is_cohere_client(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the client is one of Cohere's own packages."""
    return headers.get(b"x-fern-sdk-name", b"").startswith(b"cohere")


def is_elasticsearch(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the client is Elasticsearch, which calls inference services with Apache's HTTP client."""
    return headers.get(b"user-agent", b"").startswith(b"Apache-HttpAsyncClient/")
