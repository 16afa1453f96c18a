"""Models behind a server: calls about texts, and calls that generate text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from msgspec.structs import replace

from hubgate.core.off_loop import off_loop
from hubgate.domain.calls import (
    Call,
    Chat,
    Complete,
    Generated,
    GenerationCall,
    Result,
    SparseEmbed,
    Tokenize,
    WireFormat,
)
from hubgate.domain.errors import Cause, InvalidRequest, UpstreamRefused
from hubgate.domain.ports import Events
from hubgate.upstreams.engines.generation import GenerationRoute, GenerationRoutes
from hubgate.upstreams.engines.json_fields import post
from hubgate.upstreams.engines.replies.causes import SEND_SHORTER
from hubgate.upstreams.engines.replies.events import WholeText
from hubgate.upstreams.engines.replies.text import (
    as_payload,
    choices_in,
    read_generated,
    wire_format_of,
    with_prompt,
)
from hubgate.upstreams.engines.routes import TextRoute
from hubgate.upstreams.http.messages import HttpRequest
from hubgate.upstreams.server import Server

_WITHOUT_ROUTE = frozenset({404, 405, 501})


class ServerUpstream:
    """Implements `domain.ports.Upstream`. Each call is one request, so that it costs one permit of the rate limit.

    Args:
        server: that serves the model.
        routes: one for each kind of call that it supports.
        model: the server's name of it.
        dimensions: of its vectors, if they are known.
        path: replaces the path of every route.
    """

    def __init__(
        self,
        server: Server,
        routes: Mapping[type, TextRoute],
        model: str | None,
        dimensions: int | None,
        *,
        path: str | None = None,
    ) -> None:
        self._server = server
        self._routes = routes
        self._model = model
        self._dimensions = dimensions
        self._path = path

    async def __call__(self, call: Call) -> Result:
        """Call the server.

        Raises:
            UpstreamError: no reply, an error, or an unreadable reply.
            InvalidRequest: the server does not support the call or one of its options.
        """
        route = self._routes.get(type(call))
        if route is None:
            raise _unsupported(call)
        path = route.path if self._path is None else self._path
        request = route.request(self._server.base + path, self._model, call)
        bound = route.max_reply_bytes(call, request, self._dimensions)
        try:
            reply = await self._server.send(request, call.context, bound=bound)
        except UpstreamRefused as error:
            if error.remedy == SEND_SHORTER and _forbids_truncation(route, call, request):
                error.remedy = "Send shorter texts, or allow truncation."
            raise
        return await off_loop(len(reply.body), route.read, call, reply)

    async def close(self) -> None:
        """Does nothing: the connections are shared."""


def _forbids_truncation(route: TextRoute, call: Call, request: HttpRequest) -> bool:
    """Whether the server would have truncated the texts if the call had allowed it."""
    if isinstance(call, Tokenize) or call.truncate is not False:
        return False
    return route.request(request.url, None, replace(call, truncate=None)).body != (
        route.request(request.url, None, call).body
    )


def _unsupported(call: Call) -> InvalidRequest:
    if isinstance(call, Tokenize):
        return InvalidRequest(
            "This endpoint's server cannot tokenize texts and return offsets.",
            remedy="TEI and local models can.",
        )
    if isinstance(call, SparseEmbed):
        return InvalidRequest(
            "This endpoint's server makes no sparse vectors.",
            remedy="TEI with a SPLADE model does, and custom handlers may.",
            cause=Cause.WRONG_TASK,
        )
    return InvalidRequest(
        "This endpoint's server does not do this task.",
        remedy="Use an endpoint of another server.",
        cause=Cause.WRONG_TASK,
    )


class ServerGenerator:
    """Implements `domain.ports.TextGenerator`. Each call is one request, except the first one if its route turns out to be wrong.

    Args:
        server: that serves the model.
        routes: one for each kind of call that it supports.
        model: the server's name of it.
    """

    def __init__(self, server: Server, routes: GenerationRoutes, model: str | None) -> None:
        self._server = server
        self._routes = dict(routes)
        self._responses = routes[Chat].responses if Chat in routes else None
        self._model = model
        self._proven: set[tuple[type, WireFormat]] = set()
        """The routes that have answered a call: no later error reply takes them from all calls."""

    async def generate(self, call: GenerationCall) -> Generated:
        """The whole text.

        Raises:
            UpstreamError: no reply, an error, or an unreadable reply.
            InvalidRequest: the server does not support the call or one of its options.
        """
        route = first = self._route_of(call)
        while True:
            request = self._request(route, route.path, call, stream=False)
            try:
                reply = await self._server.send(request, call.context)
                break
            except UpstreamRefused as error:
                other = self._other_route(call, route, error)
                if other is None:
                    raise
                route = other
        self._remember(call, first, route)
        return await off_loop(len(reply.body), read_generated, route, call, reply)

    async def stream(self, call: GenerationCall) -> Events:
        """The text while it is generated; from a server that does not stream, the whole text as one event.

        Raises:
            UpstreamError: no reply, an error, or no event stream.
            InvalidRequest: the server does not support the call or one of its options.
        """
        route = first = self._route_of(call)
        while route.streams:
            path = route.path if route.stream_path is None else route.stream_path
            request = self._request(route, path, call, stream=True)
            try:
                events = await self._server.events(request, route.wire_format, call.context)
            except UpstreamRefused as error:
                other = self._other_route(call, route, error)
                if other is None:
                    raise
                route = other
            else:
                self._remember(call, first, route)
                prepends = isinstance(call, Complete) and call.full_text and not route.returns_prompt
                return AfterPrompt(events, call.prompt) if prepends and isinstance(call, Complete) else events
        return await self._unstreamed(route, call)

    async def close(self) -> None:
        """Does nothing: the connections are shared."""

    async def _unstreamed(self, route: GenerationRoute, call: GenerationCall) -> Events:
        """The whole text as one event."""
        bare = replace(call, full_text=False) if isinstance(call, Complete) else call
        return WholeText(as_payload(call, await self.generate(bare)), wire_format_of(route, call))

    def _request(
        self, route: GenerationRoute, path: str, call: GenerationCall, *, stream: bool
    ) -> HttpRequest:
        return post(self._server.base + path, route.body(call, route.model or self._model, stream=stream))

    def _route_of(self, call: GenerationCall) -> GenerationRoute:
        route = self._routes.get(type(call))
        if route is None:
            what = "has no chat route" if isinstance(call, Chat) else "does not complete texts"
            raise InvalidRequest(
                f"This endpoint's server {what}.",
                remedy="Use an endpoint of another task, or deploy the model behind vLLM or SGLang.",
                cause=Cause.WRONG_TASK,
            )
        return self._native_route(call) or route

    def _other_route(
        self, call: GenerationCall, route: GenerationRoute, error: UpstreamRefused
    ) -> GenerationRoute | None:
        """The route to try next, if the error says that the server does not have this one."""
        if route.wire_format is WireFormat.RESPONSES:
            return self._routes[type(call)] if error.status in _WITHOUT_ROUTE else None
        if route.fallback is None or route.fallback[0] not in error.markers:
            return None
        return route.fallback[1]

    def _remember(self, call: GenerationCall, first: GenerationRoute, route: GenerationRoute) -> None:
        """Use the route that has answered from now on, unless the first one has answered other calls."""
        key = (type(call), first.wire_format)
        if route is first:
            self._proven.add(key)
        elif key in self._proven:
            return
        elif first.wire_format is WireFormat.RESPONSES:
            self._responses = None  # an earlier version of the server
        else:
            self._routes[type(call)] = route

    def _native_route(self, call: GenerationCall) -> GenerationRoute | None:
        """The server's own route for OpenAI's Responses API, if the call allows it and the route honours all fields."""
        native = self._responses
        if native is None or not isinstance(call, Chat) or call.responses is None:
            return None
        return native.route if call.responses.keys() <= native.fields else None


class AfterPrompt:
    """Events of a server that does not repeat the prompt: the first chunk of each choice gets it."""

    def __init__(self, events: Events, prompt: str) -> None:
        self._events = events
        self._prompt = prompt

    @property
    def wire_format(self) -> WireFormat:
        return self._events.wire_format

    async def __aiter__(self) -> AsyncIterator[Sequence[bytes]]:
        """The payloads, as they arrive."""
        begun: set[object] = set()
        async for payloads in self._events:
            yield [self._with_prompt(payload, begun) for payload in payloads]

    async def aclose(self) -> None:
        """Close the stream."""
        await self._events.aclose()

    def _with_prompt(self, payload: bytes, begun: set[object]) -> bytes:
        choices = choices_in(payload)
        if not choices - begun:
            return payload
        begun |= choices
        return with_prompt(payload, self._prompt, self.wire_format)
