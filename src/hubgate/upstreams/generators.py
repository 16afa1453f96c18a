"""Models that write, behind a server: all of a text, or its events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import orjson

from hubgate.core.off_loop import off_loop
from hubgate.domain.calls import Chat, Complete, Generated, GenerationCall, WireFormat
from hubgate.domain.errors import Cause, InvalidRequest, UpstreamRefused
from hubgate.domain.ports import Events
from hubgate.upstreams.engines.generators import Form, Forms
from hubgate.upstreams.engines.replies.events import WholeText
from hubgate.upstreams.engines.replies.text import places_in, read_generated, with_prompt
from hubgate.upstreams.engines.requests.raw_fields import post
from hubgate.upstreams.http.messages import HttpRequest
from hubgate.upstreams.server import Server

R = TypeVar("R")


class ServerWriter:
    """Implements `domain.ports.TextGenerator`. One call is one request, but for the first of a form that proves wrong.

    Args:
        server: where it is.
        forms: how it is asked.
        model: what it calls its model.
    """

    def __init__(self, server: Server, forms: Forms, model: str | None) -> None:
        self._server = server
        self._forms = dict(forms)
        self._model = model

    async def generate(self, call: GenerationCall) -> Generated:
        """All of the text.

        Raises:
            UpstreamError: no reply, an error, or one that cannot be read.
            InvalidRequest: the call needs what this server does not do.
        """

        async def asked(form: Form) -> Generated:
            reply = await self._server.ask(self._request(form, call, stream=False), call.context)
            return await off_loop(len(reply.body), read_generated, form, call, reply)

        return await self._in_the_right_form(call, asked)

    async def stream(self, call: GenerationCall) -> Events:
        """The text as it is made; of a server that does not stream, all of it at once.

        Raises:
            UpstreamError: no reply, an error, or no event stream.
            InvalidRequest: the call needs what this server does not do.
        """

        async def asked(form: Form) -> Events:
            if not form.streams:
                return await self._at_once(form, call)
            request = self._request(form, call, stream=True)
            events = await self._server.events(request, form.wire_format, call.context)
            full = isinstance(call, Complete) and call.full_text and not form.puts_prompt_before
            return AfterPrompt(events, call.prompt) if full and isinstance(call, Complete) else events

        return await self._in_the_right_form(call, asked)

    async def close(self) -> None:
        """Nothing of its own: the connections are shared."""

    async def _at_once(self, form: Form, call: GenerationCall) -> Events:
        """One event as text-generation-inference writes its last."""
        assert isinstance(call, Complete)  # noqa: S101 - whoever holds conversations streams them
        bare = await self.generate(replace(call, full_text=False))
        text = orjson.loads(bare.body)["generated_text"]
        token = {"id": 0, "text": text, "logprob": None, "special": False}
        whole = call.prompt + text if call.full_text else text
        event = {"index": 1, "token": token, "generated_text": whole, "details": None}
        return WholeText(orjson.dumps(event), form.wire_format)

    async def _in_the_right_form(self, call: GenerationCall, ask: Callable[[Form], Awaitable[R]]) -> R:
        form = self._forms.get(type(call))
        if form is None:
            what = "holds no conversations" if isinstance(call, Chat) else "does not go on with texts"
            raise InvalidRequest(
                f"This endpoint's server {what}.",
                remedy="Use an endpoint of another task, or deploy the model behind vLLM or SGLang.",
                cause=Cause.WRONG_TASK,
            )
        try:
            return await ask(form)
        except UpstreamRefused as error:
            if form.instead is None or form.instead[0] not in error.markers:
                raise
            self._forms[type(call)] = form.instead[1]
        return await ask(self._forms[type(call)])

    def _request(self, form: Form, call: GenerationCall, *, stream: bool) -> HttpRequest:
        route = form.stream_route if stream and form.stream_route is not None else form.route
        return post(self._server.base + route, form.body(call, form.model or self._model, stream=stream))


class AfterPrompt:
    """Events of a server that does not put the prompt before the text: it is put into each choice's first chunk."""

    def __init__(self, events: Events, prompt: str) -> None:
        self._events = events
        self._prompt = prompt

    @property
    def wire_format(self) -> WireFormat:
        """How the payloads are written."""
        return self._events.wire_format

    async def __aiter__(self) -> AsyncIterator[Sequence[bytes]]:
        """The payloads, as they arrive."""
        begun: set[object] = set()
        async for payloads in self._events:
            yield [self._begun(payload, begun) for payload in payloads]

    async def aclose(self) -> None:
        """End it."""
        await self._events.aclose()

    def _begun(self, payload: bytes, begun: set[object]) -> bytes:
        places = places_in(payload)
        if not places - begun:
            return payload
        begun |= places
        return with_prompt(payload, self._prompt, self.wire_format)
