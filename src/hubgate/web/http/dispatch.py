"""Finds the handler of a request: for inference in dictionaries, which is fast, else with Starlette's router."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache, partial

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route, Router

from hubgate.core.off_loop import LARGE_BYTES, in_worker, outlasting
from hubgate.domain.errors import NotFound
from hubgate.service.cluster.gates import Gates
from hubgate.service.keys.shared_limits import SharedKeyLimits
from hubgate.service.rounds import Rounds
from hubgate.web.http.acknowledged import Acknowledged, ask_again
from hubgate.web.http.asgi import AsgiApp, Receive, Scope, Send, check_values, read_body, take_arrived
from hubgate.web.http.errors import MethodNotAllowed
from hubgate.web.http.face import MAX_REMEMBERED_PATH, Handler, InferenceRoute
from hubgate.web.http.head import HEAD
from hubgate.web.http.request_context import RequestContext, context_of

_SLOW_BYTES = 256 * 1024
"""Of a body whose items are converted in Python, which takes about 50 ms for a megabyte of small ones."""
_NO_PARAMETERS: dict[str, str] = {}


class Dispatch:
    """The routes of all faces as one ASGI application. Where two routes have the same path, the first one wins."""

    def __init__(
        self,
        routes: Iterable[BaseRoute | InferenceRoute],
        limits: SharedKeyLimits,
        gates: Gates | None = None,
        rounds: Rounds | None = None,
    ) -> None:
        """`gates` and `rounds` are those of a shared database."""
        self.routes = tuple(routes)
        self._by_path: dict[str, Handler] = {}
        self._by_segment = _Node()
        self._slow = {one.handler for one in self.routes if isinstance(one, InferenceRoute) and one.is_slow}
        for route in self.routes:
            if isinstance(route, InferenceRoute):
                if "{" in route.path:
                    self._by_segment.add(route)
                else:
                    self._by_path.setdefault(route.path.rstrip("/"), route.handler)
        self._by_precedence = sorted(map(_as_route, self.routes), key=_precedence)
        others = [route for route in self.routes if isinstance(route, BaseRoute)]
        router = Router(others, redirect_slashes=False)
        # Calls change nothing that other gateways have to know.
        self._router: AsgiApp = router if not (gates and rounds) else Acknowledged(router, gates, rounds)
        self._rounds = rounds
        self._limits = limits
        self._find = lru_cache(maxsize=1024)(self._find_handler)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = scope["path"]
        find = self._find if len(path) <= MAX_REMEMBERED_PATH else self._find.__wrapped__
        handler, parameters = find(path)
        if handler is None or scope["method"] != "POST":
            return self._route(scope, receive, send, is_call=handler is not None)
        context = context_of(scope)
        context.is_call = True
        key = context.key
        if context.head is not None and HEAD not in scope:
            context.head.share(scope, key)
        body = None if key is not None and key.is_limited else take_arrived(receive)
        if body is None:
            large = _SLOW_BYTES if handler in self._slow else LARGE_BYTES
            return self._call_later(partial(handler, scope, send=send, **parameters), receive, context, large)
        if self._rounds is not None:
            return ask_again(partial(handler, scope, body, send, **parameters), context, self._rounds)
        return handler(scope, body, send, **parameters)

    def _find_handler(self, path: str) -> tuple[Handler | None, dict[str, str]]:
        trimmed = path.rstrip("/")
        handler = self._by_path.get(trimmed)
        return (handler, _NO_PARAMETERS) if handler else self._by_segment.find(trimmed)

    async def _call_later(
        self, call: Callable[..., Awaitable[None]], receive: Receive, context: RequestContext, large: int
    ) -> None:
        """Call a handler within the limits of the key, when the body has arrived; in a thread if it is `large`."""
        key = context.key
        if key is not None and key.is_limited:
            await self._limits.admit(key, context.started)
        body = await read_body(receive)

        async def answer() -> None:
            await (call(body=body) if len(body) <= large else await _begin_off_loop(call, body))

        await (answer() if self._rounds is None else ask_again(answer, context, self._rounds))

    async def _route(self, scope: Scope, receive: Receive, send: Send, *, is_call: bool) -> None:
        """Find the handler with Starlette's router. With `is_call`, a POST to this path calls a model."""
        path = scope["path"]
        if len(path) > 1 and path.endswith("/"):
            scope["path"] = path.rstrip("/")
        scope["app"] = self  # makes the router raise instead of responding in plain text
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            if error.status_code == 405 or is_call:
                names = ", ".join(sorted(self._methods(scope)))
                message = f"{scope['method']} is not allowed at {path[:200]}."
                raise MethodNotAllowed(message, allowed=names) from None
            raise NotFound(f"Nothing is served at {scope['method']} {path[:200]}.") from None

    def _methods(self, scope: Scope) -> set[str]:
        """The methods of what is at this path: where `/jobs/estimate` is a route, it is not an id of `/jobs/{job}`."""
        at = {**scope, "path": scope["path"] or "/"}
        routes = [route for route in self._by_precedence if route.matches(at)[0] is not Match.NONE]
        same = (route for route in routes if _precedence(route) == _precedence(routes[0]))
        return {method for route in same for method in route.methods or ()}


def _as_route(route: BaseRoute | InferenceRoute) -> Route:
    if isinstance(route, InferenceRoute):
        return Route(route.path.rstrip("/") or "/", route.handler, methods=["POST"])
    assert isinstance(route, Route)  # noqa: S101 - no face has another kind
    return route


def _precedence(route: Route) -> list[int]:
    """By segment: a literal, a parameter, or one for many segments."""
    return [segment.count("{") + segment.count(":path}") for segment in route.path.split("/")]


async def _begin_off_loop(call: Callable[..., Awaitable[None]], body: bytes) -> Awaitable[None]:
    """Let a handler read a large body in a thread; what it returns is awaited here."""
    begun = asyncio.ensure_future(in_worker(_begin, call, body))
    try:
        return await outlasting(begun)
    except asyncio.CancelledError:
        begun.add_done_callback(_discard)
        raise


def _begin(call: Callable[..., Awaitable[None]], body: bytes) -> Awaitable[None]:
    """An executor calls no coroutine function, but this one."""
    check_values(body)
    return call(body=body)


def _discard(begun: asyncio.Future[Awaitable[None]]) -> None:
    """Close what nobody awaits: Python would warn of it."""
    if not begun.cancelled() and begun.exception() is None and asyncio.iscoroutine(call := begun.result()):
        call.close()


class _Node:
    """A tree of path segments. A literal segment takes precedence over a parameter."""

    __slots__ = ("handler", "literals", "names", "parameter")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.names: tuple[str, ...] = ()
        self.handler: Handler | None = None

    def add(self, route: InferenceRoute) -> None:
        node, names = self, []
        for segment in route.path.split("/")[1:]:
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        if node.handler is None:
            node.handler, node.names = route.handler, tuple(names)

    def find(self, path: str) -> tuple[Handler | None, dict[str, str]]:
        node, values = self, []
        head, *segments = path.split("/")
        if head:
            return None, _NO_PARAMETERS
        for segment in segments:
            child = node.literals.get(segment)
            if child is None:
                child = node.parameter
                # No endpoint name starts with "_"; paths such as `/_stream` do.
                if child is None or not segment or segment[0] == "_":
                    return None, _NO_PARAMETERS
                values.append(segment)
            node = child
        return node.handler, dict(zip(node.names, values, strict=False))
