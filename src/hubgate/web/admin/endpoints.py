"""`/api/endpoints`: registered endpoints."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubgate.domain.chunking import parse_chunking_settings
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import InUse
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.service.registry.registry import users_of
from hubgate.service.states import State
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.admin.paging import is_forced, list_response, page_parameters, requested_page
from hubgate.web.http.asgi import decode, read_json_body
from hubgate.web.http.errors import CALL_FAILURES, error_json
from hubgate.web.schemas.endpoint import EndpointForm, edit_endpoint, endpoint_json
from hubgate.web.shared.embeddings import parse_input_type, parse_texts

_EXAMPLE = {"name": "e5", "url": "https://x1.us-east-1.aws.endpoints.huggingface.cloud", "token": "hf_…"}


class RegistrationForm(EndpointForm, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    save_anyway: bool = False
    """Whether to store it, disabled, if its validation call fails."""


class CloneForm(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    """The clone's."""


class ChunkForm(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    chunking_settings: dict[str, Any] | None = None
    """The default is the endpoint's own."""
    input_type: str | None = "document"
    """Its prefix counts towards the size of a chunk."""


class MeasureForm(msgspec.Struct, forbid_unknown_fields=True):
    texts: list[Any]
    input_type: str | None = "document"
    chunk: bool = False
    """Whether to split texts by the endpoint's own settings."""


_REGISTRATION = msgspec.json.Decoder(RegistrationForm)
_CHANGES = msgspec.json.Decoder(dict[str, Any])
_CLONE = msgspec.json.Decoder(CloneForm)
_CHUNK = msgspec.json.Decoder(ChunkForm)
_MEASURE = msgspec.json.Decoder(MeasureForm)


class EndpointsApi:
    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access

    async def list(self, request: Request) -> Response:
        limit, after = requested_page(request)
        names = sorted(self._gateway.live.names())
        start = 0 if after is None else bisect_right(names, after)
        names = names[start : None if limit is None else start + limit]
        state_of = await self._gateway.states.reader()
        return await list_response("endpoints", self._shown(names, state_of))

    async def show(self, request: Request) -> Response:
        return json_response(await self._endpoint_json(request.path_params["name"]))

    async def add(self, request: Request) -> Response:
        form = decode(await read_json_body(request), _REGISTRATION)
        draft, token = form.endpoint()
        try:
            await self._gateway.registry.register(draft, token)
        except CALL_FAILURES as error:
            if not form.save_anyway:
                raise
            await self._gateway.registry.register_disabled(draft, token)
            return json_response({**await self._endpoint_json(draft.name), "failure": error_json(error)}, 201)
        return json_response(await self._endpoint_json(draft.name), 201)

    async def edit(self, request: Request) -> Response:
        changes = decode(await read_json_body(request), _CHANGES)
        wanted = edit_endpoint(self._gateway.registry.find(request.path_params["name"]), changes)
        await self._gateway.registry.edit(wanted.endpoint, wanted.token, keep_token=wanted.keep_token)
        return json_response(await self._endpoint_json(wanted.endpoint.name))

    async def clone(self, request: Request) -> Response:
        form = decode(await read_json_body(request), _CLONE)
        await self._gateway.registry.clone(request.path_params["name"], form.name)
        return json_response(await self._endpoint_json(form.name), 201)

    async def remove(self, request: Request) -> Response:
        name = request.path_params["name"]
        self._gateway.registry.find(name)
        users = users_of(name, self._gateway.registry.endpoints(), self._access.list())
        if users and not is_forced(request):
            raise InUse(
                f"Endpoint [{name}] is used by {', '.join(users)}.",
                remedy="Change those first, or force it: they would then call an endpoint that does not exist.",
            )
        await self._gateway.registry.remove(name)
        return Response(status_code=204)

    async def check(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self._gateway.registry.check(name)
        return json_response(await self._endpoint_json(name))

    async def accept(self, request: Request) -> Response:
        name = request.path_params["name"]
        await self._gateway.registry.accept(name)
        return json_response(await self._endpoint_json(name))

    async def chunk(self, request: Request) -> Response:
        form = decode(await read_json_body(request), _CHUNK)
        name = request.path_params["name"]
        settings = parse_chunking_settings(form.chunking_settings) if form.chunking_settings else None
        kind = parse_input_type(form.input_type)
        (chunks,) = await self._gateway.inference.chunk(name, [form.text], settings, kind)
        return json_response(
            {
                "utf16": [[one.start_utf16, one.end_utf16] for one in chunks],
                "codepoints": [[one.start, one.end] for one in chunks],
            }
        )

    async def measure(self, request: Request) -> Response:
        form = decode(await read_json_body(request), _MEASURE)
        name, texts = request.path_params["name"], parse_texts(form.texts, "texts")
        kind = parse_input_type(form.input_type)
        measures = await self._gateway.measures.texts(name, texts, kind, chunked=form.chunk)
        allowance = await self._gateway.measures.allowance(name)
        return json_response({"texts": measures, "allowance": allowance})

    def routes(self) -> Sequence[ApiRoute]:
        one = "/endpoints/{name}"
        return (
            ApiRoute(
                method="GET",
                path="/endpoints",
                handler=self.list,
                summary="Lists endpoints, by name.",
                query=page_parameters("a name"),
            ),
            ApiRoute(
                method="POST",
                path="/endpoints",
                handler=self.add,
                summary="Registers an endpoint. hubgate calls its model before storing it.",
                body=RegistrationForm,
                example=_EXAMPLE,
                status=201,
            ),
            ApiRoute(method="GET", path=one, handler=self.show, summary="Returns one endpoint."),
            ApiRoute(
                method="PATCH",
                path=one,
                handler=self.edit,
                summary="Changes settings. Absent ones stay, null restores the default.",
                body=EndpointForm,
                partial=True,
                example={"rate_limit": {"requests_per_minute": 300}, "enabled": True},
            ),
            ApiRoute(
                method="DELETE",
                path=one,
                handler=self.remove,
                summary="Deletes an endpoint and its token; 409 with its users, if any.",
                query={"force": "true: delete it even if it is used"},
                status=204,
            ),
            *self._verbs(one),
        )

    def _verbs(self, one: str) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="POST",
                path=f"{one}/clone",
                handler=self.clone,
                summary="Registers a copy under another name.",
                body=CloneForm,
                example={"name": "e5-two"},
                status=201,
            ),
            ApiRoute(
                method="POST",
                path=f"{one}/chunk",
                handler=self.chunk,
                summary="Returns the offsets of a text's chunks, without calling the model.",
                body=ChunkForm,
                example={"text": "One sentence. Another one."},
            ),
            ApiRoute(
                method="POST",
                path=f"{one}/measure",
                handler=self.measure,
                summary="Returns the chunks, tokens and cached share of texts, and the rate limit, without calling the model.",
                body=MeasureForm,
                example={"texts": ["One sentence. Another one."]},
            ),
            ApiRoute(
                method="POST",
                path=f"{one}/check",
                handler=self.check,
                summary="Checks that the registered model still answers.",
            ),
            ApiRoute(
                method="POST",
                path=f"{one}/accept",
                handler=self.accept,
                summary="Accepts the model that runs there now.",
            ),
        )

    async def _endpoint_json(self, name: str) -> dict[str, Any]:
        endpoint = self._gateway.registry.find(name)
        (state,) = await self._gateway.states.of([endpoint])
        return self._json(endpoint, state)

    def _shown(self, names: Iterable[str], state_of: Callable[[Endpoint], State]) -> Iterator[dict[str, Any]]:
        """Each endpoint as it is when its turn comes; one that was removed meanwhile is left out."""
        for name in names:
            if name in self._gateway.live:
                endpoint = self._gateway.registry.find(name)
                yield self._json(endpoint, state_of(endpoint))

    def _json(self, endpoint: Endpoint, state: State) -> dict[str, Any]:
        """Settings, facts and current state."""
        hint = self._gateway.registry.token_hint(endpoint.name)
        return {**endpoint_json(endpoint, hint), **_state_json(endpoint, state)}


def _state_json(endpoint: Endpoint, state: State) -> dict[str, Any]:
    shown = _numbers_json(state)
    if state.gateways:
        shown["gateways"] = {name: _numbers_json(part) for name, part in state.gateways.items()}
    if not state.replicas:
        return shown
    replicas = [
        {
            "name": replica.name,
            "state": replica.kind,
            **({"cause": replica.cause, "message": replica.message} if replica.cause else {}),
            "in_flight": replica.in_flight,
            "concurrency_limit": replica.concurrency_limit,
            "requests": replica.requests,
            "engine": known.facts.engine,
        }
        for replica, known in zip(state.replicas, endpoint.replicas, strict=True)
    ]
    return {**shown, "replicas": replicas}


def _numbers_json(state: State) -> dict[str, Any]:
    cause = {"cause": state.cause} if state.cause else {}
    limit = {"concurrency_limit": state.concurrency_limit} if state.concurrency_limit else {}
    return {
        "state": state.kind,
        **cause,
        "queued_calls": state.waiting,
        "in_flight": state.in_flight,
        **limit,
    }
