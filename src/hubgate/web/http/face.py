"""A face: one API dialect, declared in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.routing import BaseRoute

from hubgate.domain.errors import HubgateError
from hubgate.domain.ports import Hub
from hubgate.service.gateway import Gateway
from hubgate.service.inference.vector_cache import VectorMemory
from hubgate.service.keys.access import Access
from hubgate.web.http.asgi import AsgiApp, Headers
from hubgate.web.schemas.configuration import Configuration

RenderError = Callable[[HubgateError, int], tuple[int, object]]
"""Status and JSON body of an error, from the error and hubgate's own status for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What faces serve from."""

    gateway: Gateway
    access: Access
    memory: VectorMemory | None
    hub: Hub
    configuration: Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class HotRoutes:
    """The routes of inference. They are found in dictionaries and served on plain ASGI, all of them by POST."""

    by_path: Mapping[str, AsgiApp] = field(default_factory=dict)
    """By the whole path, without a slash at its end."""
    below: Mapping[str, Callable[[Sequence[str]], AsgiApp | None]] = field(default_factory=dict)
    """By the first segment of the path: finds a handler by the segments after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One API dialect."""

    name: str
    """In logs and metrics."""
    owns: Callable[[Sequence[str], Mapping[bytes, bytes]], bool]
    """Whether a path belongs to it, by the path's first segments and the request's headers."""
    render_error: RenderError
    routes: Callable[[Services], Sequence[BaseRoute]] = lambda _: ()
    headers: Headers = ()
    """On every answer."""
    hot_routes: Callable[[Services], HotRoutes] = lambda _: HotRoutes()


def face_of(path: str, headers: Mapping[bytes, bytes], faces: Sequence[Face]) -> Face:
    """The first face that owns the path, else the last one: even an unknown path is answered in a known dialect."""
    segments = path.split("/", 3)[1:] if path.startswith("/") else ("",)
    return next((face for face in faces if face.owns(segments, headers)), faces[-1])
