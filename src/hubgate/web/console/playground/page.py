"""The playground: one model tried in the page, by its task, and each try as it is written for other clients."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from hubgate.core.chunking import Chunk
from hubgate.domain.calls import Call, Chat, Complete, Embed, Result
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import HubgateError, InvalidRequest
from hubgate.domain.records import Key
from hubgate.service.gateway import Gateway
from hubgate.web.console.page_context import PageContext
from hubgate.web.console.playground.form import (
    FURTHER,
    INPUT_TYPES,
    MAX_TEXTS,
    PARAMETERS,
    RAW_FIELDS,
    SAMPLES,
    as_last_asked,
    call_of,
    kind_of,
)
from hubgate.web.console.playground.snippets import KEY, SnippetContext, snippets
from hubgate.web.console.playground.stream import Streamed
from hubgate.web.console.playground.views import view_of
from hubgate.web.http.errors import status_of
from hubgate.web.http.request_context import RequestContext, context_of
from hubgate.web.shared.embeddings import embed

CONSOLE = Key(id="console", name="console", digest=b"", created_at=0.0, admin=True)
"""By whom the playground's calls are counted, whoever is signed in."""
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class PlaygroundPage:
    """Tries of one endpoint."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def show(self, context: PageContext) -> Response:
        """The page, with texts to begin with."""
        endpoint = self._endpoint(context)
        return self._page(context, endpoint, proposed(context, kind_of(endpoint)))

    async def run(self, context: PageContext) -> Response:
        """Ask a model about texts, and show its answer; an error is shown in the answer's place."""
        endpoint, form = self._endpoint(context), await context.form(RAW_FIELDS)
        request_context, began = _request_context(context, endpoint), time.monotonic()
        try:
            call = call_of(endpoint, form, request_context.call_context())
            if isinstance(call, Chat | Complete):
                raise InvalidRequest("This model writes, and its text is streamed.")
            result = await self._ask(request_context, endpoint.name, call)
            seconds = time.monotonic() - began
            view = await view_of(call, result, seconds, await self._chunks(endpoint.name, call))
        except HubgateError as error:
            request_context.cause = error.cause
            return self._answer(context, endpoint, form, status_of(error), error=error)
        return self._answer(context, endpoint, form, view=view)

    async def stream(self, context: PageContext) -> Response:
        """Let a model write, and stream what it writes into the page."""
        endpoint = self._endpoint(context)
        form = await context.form(RAW_FIELDS)
        request_context = _request_context(context, endpoint)
        call = call_of(endpoint, form, request_context.call_context())
        if not isinstance(call, Chat | Complete):
            raise InvalidRequest("This model does not write.")
        return Streamed(context, self._gateway, endpoint, call)

    async def copy(self, context: PageContext) -> Response:
        """What is in the form, in the words of other clients."""
        endpoint, form = self._endpoint(context), await context.form(RAW_FIELDS)
        return context.render("play_copy.html", **copied(context, endpoint, form))

    async def _ask(self, request_context: RequestContext, name: str, call: Call) -> Result:
        if isinstance(call, Embed):
            return await embed(self._gateway, request_context, name, call)
        result = await self._gateway.inference.infer(name, call)
        request_context.texts, request_context.waited = len(call.texts), getattr(result, "waited", 0.0)
        request_context.tokens = getattr(result, "tokens", None) or 0
        return result

    async def _chunks(self, name: str, call: Call) -> Sequence[Sequence[Chunk]]:
        if not isinstance(call, Embed):
            return ()
        return await self._gateway.inference.chunk(name, call.texts, None, call.input_type)

    def _endpoint(self, context: PageContext) -> Endpoint:
        return self._gateway.registry.find(context.request.path_params["name"])

    def _answer(
        self,
        context: PageContext,
        endpoint: Endpoint,
        form: Mapping[str, str],
        status: int = 200,
        **answer: Any,
    ) -> Response:
        if context.is_htmx:
            return context.render("play_answer.html", status, **_answered(endpoint, answer))
        return self._page(context, endpoint, form, status, **answer)

    def _page(
        self,
        context: PageContext,
        endpoint: Endpoint,
        form: Mapping[str, str],
        status: int = 200,
        **answer: Any,
    ) -> Response:
        return context.render(
            "play.html",
            status,
            **copied(context, endpoint, form),
            **_answered(endpoint, answer),
            form=form,
            parameters=PARAMETERS,
            further=FURTHER,
            input_types=INPUT_TYPES,
            most_texts=MAX_TEXTS,
        )


def _request_context(context: PageContext, endpoint: Endpoint) -> RequestContext:
    """The request's request_context, by which it is counted as a call of any application is."""
    request_context = context_of(context.request.scope)
    request_context.key, request_context.is_call = CONSOLE, True
    request_context.endpoint = endpoint.name
    return request_context


def _answered(endpoint: Endpoint, answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"endpoint": endpoint, "kind": kind_of(endpoint), "view": None, "error": None, **answer}


def copied(context: PageContext, endpoint: Endpoint, form: Mapping[str, str]) -> dict[str, Any]:
    """The snippets, and the one that is looked at; none where the form describes no call."""
    url = context.request.url
    try:
        call = call_of(
            endpoint, as_last_asked(endpoint, form), context_of(context.request.scope).call_context()
        )
    except InvalidRequest:
        return {"snippets": [], "chosen": None, "key": KEY, "is_local": False}
    snippet_context = SnippetContext(f"{url.scheme}://{url.netloc}", endpoint, call)
    found = snippets(snippet_context, chinese=context.language.code == "zh")
    chosen = next((one for one in found if one.name == form.get("as")), found[0])
    return {
        "snippets": found,
        "chosen": chosen,
        "key": KEY,
        "is_local": url.hostname in _LOCAL_HOSTS,
    }


def proposed(context: PageContext, kind: str) -> dict[str, str]:
    """What the form holds at first, in the visitor's language."""
    form = {one.name: str(one.usual) for one in PARAMETERS if one.usual}
    if kind in {"embed", "sparse", "rank"}:
        form |= {f"text_{n}": context.translate(f"play.sample.{n}") for n in range(1, SAMPLES + 1)}
    if kind == "rank":
        form["query"] = context.translate("play.sample.query")
    if kind in {"chat", "text"}:
        form["prompt"] = context.translate(f"play.sample.{kind}")
    return form
