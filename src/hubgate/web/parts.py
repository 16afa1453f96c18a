"""What a feature adds to the gateway: see `hubgate.features`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from starlette.routing import BaseRoute

from hubgate.service.cluster.following import Follow
from hubgate.service.metrics import Lines
from hubgate.web.admin.openapi import ApiRoute
from hubgate.web.console.auth import PageHandler
from hubgate.web.console.page_context import NavigationEntry
from hubgate.web.http.face import InferenceRoute
from hubgate.web.http.internal import RowCaller
from hubgate.web.http.request_context import OnFinished


class Page(NamedTuple):
    """A page of the console, or a part of one. It requires a session."""

    method: str
    path: str
    """Below `/ui`, in Starlette's syntax."""
    handler: PageHandler
    polling: bool = False
    """Whether an open page requests it by itself."""
    upload: bool = False
    """Whether the handler reads the form, and checks its CSRF token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What is added to the gateway while a feature is open."""

    api: Sequence[ApiRoute] = ()
    routes: Sequence[BaseRoute | InferenceRoute] = ()
    """Other paths. The face that owns a path renders its errors."""
    pages: Sequence[Page] = ()
    navigation: Sequence[NavigationEntry] = ()
    audit_verbs: Sequence[str] = ()
    """Verbs of the audit log with a translation, `audit.<verb>`."""
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
    """Run as long as the gateway serves."""
    follows: Sequence[Follow] = ()
    """Also called when the endpoints are loaded."""
    metrics: Sequence[Lines] = ()
    """Called at each scrape."""
    finished: Sequence[OnFinished] = ()
    serving: Sequence[Callable[[RowCaller], AbstractAsyncContextManager[None]]] = ()
    """Open while the gateway serves, before it closes. They may send requests to it."""

    @classmethod
    def joined(cls, parts: Iterable[Parts]) -> Parts:
        """Those of several features, in order."""
        several = list(parts)

        def of(name: str) -> tuple[Any, ...]:
            return tuple(chain.from_iterable(getattr(one, name) for one in several))

        return cls(**{name: of(name) for name in cls.__slots__})
