"""The playground: calls to one model from the browser, and the same calls as code for other clients."""

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
    INPUT_TYPES,
    MAX_TEXTS,
    MORE_PARAMETERS,
    PARAMETERS,
    RAW_FIELDS,
    SAMPLES,
    call_of,
    kind_of,
    with_last_message,
)
from hubgate.web.console.playground.snippets import KEY, SnippetContext, snippets
from hubgate.web.console.playground.stream import StreamedResponse
from hubgate.web.console.playground.views import view_of
from hubgate.web.http.errors import status_of
from hubgate.web.http.request_context import RequestContext, context_of
from hubgate.web.shared.embeddings import embed

CONSOLE = Key(id="console", name="console", digest=b"", created_at=0.0, admin=True)
"""The key under which the playground's calls are counted."""
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class PlaygroundPage:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def show(self, context: PageContext) -> Response:
        endpoint = self._endpoint(context)
        return self._render_page(context, endpoint, sample_form(context, kind_of(endpoint)))

    async def run(self, context: PageContext) -> Response:
        """Call a model with texts and show the result, or the error in its place."""
        endpoint, form = self._endpoint(context), await context.form(RAW_FIELDS)
        request_context, started = _request_context(context, endpoint), time.monotonic()
        try:
            call = call_of(endpoint, form, request_context.call_context())
            if isinstance(call, Chat | Complete):
                raise InvalidRequest("This model generates text, which is streamed.")
            result = await self._ask(request_context, endpoint.name, call)
            seconds = time.monotonic() - started
            view = await view_of(call, result, seconds, await self._chunks(endpoint.name, call))
        except HubgateError as error:
            request_context.cause = error.cause
            return self._render_result(context, endpoint, form, status_of(error), error=error)
        return self._render_result(context, endpoint, form, view=view)

    async def stream(self, context: PageContext) -> Response:
        """Stream generated text into the page."""
        endpoint = self._endpoint(context)
        form = await context.form(RAW_FIELDS)
        request_context = _request_context(context, endpoint)
        call = call_of(endpoint, form, request_context.call_context())
        if not isinstance(call, Chat | Complete):
            raise InvalidRequest("This model does not generate text.")
        return StreamedResponse(context, self._gateway, endpoint, call)

    async def copy(self, context: PageContext) -> Response:
        """The call in the form as code for other clients."""
        endpoint, form = self._endpoint(context), await context.form(RAW_FIELDS)
        return context.render("playground/snippets.html", **snippet_values(context, endpoint, form))

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

    def _render_result(
        self,
        context: PageContext,
        endpoint: Endpoint,
        form: Mapping[str, str],
        status: int = 200,
        **answer: Any,
    ) -> Response:
        if context.is_htmx:
            return context.render("playground/result.html", status, **_result_values(endpoint, answer))
        return self._render_page(context, endpoint, form, status, **answer)

    def _render_page(
        self,
        context: PageContext,
        endpoint: Endpoint,
        form: Mapping[str, str],
        status: int = 200,
        **answer: Any,
    ) -> Response:
        return context.render(
            "playground/page.html",
            status,
            **snippet_values(context, endpoint, form),
            **_result_values(endpoint, answer),
            form=form,
            parameters=PARAMETERS,
            more_parameters=MORE_PARAMETERS,
            input_types=INPUT_TYPES,
            max_texts=MAX_TEXTS,
        )


def _request_context(context: PageContext, endpoint: Endpoint) -> RequestContext:
    """The request, set up so that it is counted like any application's call."""
    request_context = context_of(context.request.scope)
    request_context.key, request_context.is_call = CONSOLE, True
    request_context.use(endpoint, endpoint.name)
    return request_context


def _result_values(endpoint: Endpoint, answer: Mapping[str, Any]) -> dict[str, Any]:
    return {"endpoint": endpoint, "kind": kind_of(endpoint), "view": None, "error": None, **answer}


def snippet_values(context: PageContext, endpoint: Endpoint, form: Mapping[str, str]) -> dict[str, Any]:
    """The snippets and the selected one; none if the form is invalid."""
    url = context.request.url
    try:
        call = call_of(
            endpoint, with_last_message(endpoint, form), context_of(context.request.scope).call_context()
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


def sample_form(context: PageContext, kind: str) -> dict[str, str]:
    """The initial form, with samples in the reader's language."""
    form = {one.name: str(one.default) for one in PARAMETERS if one.default}
    if kind not in {"chat", "text"}:
        form |= {f"text_{n}": context.translate(f"play.sample.{n}") for n in range(1, SAMPLES + 1)}
    if kind == "rank":
        form["query"] = context.translate("play.sample.query")
    if kind in {"chat", "text"}:
        form["prompt"] = context.translate(f"play.sample.{kind}")
    return form
