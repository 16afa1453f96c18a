"""The gate's own API: registered endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubgate.domain.chunking import parse_chunking_settings
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import CapacityError, InUse, InvalidRequest, RuntimeFailed, UpstreamError
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.service.registry.registry import users_of
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.console.models.states import state_of
from hubgate.web.http.asgi import decode
from hubgate.web.schemas.endpoint import EndpointForm, edited, endpoint_json
from hubgate.web.shared.embeddings import parse_input_type

_PROOF_FAILED = (UpstreamError, CapacityError, RuntimeFailed)
"""What fails while an endpoint is put to the proof, as opposed to what is wrong with its settings."""
_EXAMPLE = {"name": "e5", "url": "https://x1.us-east-1.aws.endpoints.huggingface.cloud", "token": "hf_…"}


class RegistrationForm(EndpointForm, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What is sent to register an endpoint."""

    save_anyway: bool = False
    """Whether to keep it, switched off, where it fails its test."""


class CloneForm(msgspec.Struct, forbid_unknown_fields=True):
    """What is sent to clone an endpoint."""

    name: str
    """Of the clone."""


class ChunkForm(msgspec.Struct, forbid_unknown_fields=True):
    """What is sent to see how a text is cut."""

    text: str
    chunking_settings: dict[str, Any] | None = None
    """Instead of the endpoint's own."""
    input_type: str | None = "document"
    """What the text is for: its prefix takes room, too."""


_REGISTRATION = msgspec.json.Decoder(RegistrationForm)
_CHANGES = msgspec.json.Decoder(dict[str, Any])
_CLONE = msgspec.json.Decoder(CloneForm)
_CHUNK = msgspec.json.Decoder(ChunkForm)


class EndpointsApi:
    """Registering endpoints, changing them and looking after them."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access

    async def list(self, request: Request) -> Response:
        """Every endpoint."""
        return json_response({"endpoints": _all_shown(self._gateway, self._gateway.registry.endpoints())})

    async def show(self, request: Request) -> Response:
        """One endpoint."""
        return json_response(self._shown(request.path_params["name"]))

    async def add(self, request: Request) -> Response:
        """Register an endpoint: it is called before it is stored."""
        form = decode(await request.body(), _REGISTRATION)
        draft, token = form.endpoint()
        try:
            await self._gateway.registry.register(draft, token)
        except _PROOF_FAILED as error:
            if not form.save_anyway:
                raise
            await self._gateway.registry.register_disabled(draft, token)
            failure = {"cause": error.cause, "message": error.message, "remedy": error.remedy}
            return json_response({**self._shown(draft.name), "failure": failure}, 201)
        return json_response(self._shown(draft.name), 201)

    async def edit(self, request: Request) -> Response:
        """Change settings of an endpoint; it is called only where they may change what it is."""
        given = decode(await request.body(), _CHANGES)
        wanted = edited(self._gateway.registry.find(request.path_params["name"]), given)
        await self._gateway.registry.edit(wanted.endpoint, wanted.token, keep_token=wanted.keep_token)
        return json_response(self._shown(wanted.endpoint.name))

    async def clone(self, request: Request) -> Response:
        """Register an endpoint once more under another name."""
        form = decode(await request.body(), _CLONE)
        await self._gateway.registry.clone(request.path_params["name"], form.name)
        return json_response(self._shown(form.name), 201)

    async def remove(self, request: Request) -> Response:
        """Forget an endpoint; 409 with who uses it, unless it is forced."""
        name = request.path_params["name"]
        self._gateway.registry.find(name)
        users = users_of(name, self._gateway.registry.endpoints(), self._access.list())
        if users and not _forced(request):
            raise InUse(
                f"Endpoint [{name}] is used by {', '.join(users)}.",
                remedy="Change those first, or force it: they will call an endpoint that is not there.",
            )
        await self._gateway.registry.remove(name)
        return Response(status_code=204)

    async def check(self, request: Request) -> Response:
        """Look whether the registered model still answers; 424 with what changed, if it does not."""
        name = request.path_params["name"]
        await self._gateway.registry.check(name)
        return json_response(self._shown(name))

    async def accept(self, request: Request) -> Response:
        """Take what runs there now for the registered model."""
        name = request.path_params["name"]
        await self._gateway.registry.accept(name)
        return json_response(self._shown(name))

    async def chunk(self, request: Request) -> Response:
        """Cut a text into the chunks that the endpoint makes of it; the model is not called."""
        form = decode(await request.body(), _CHUNK)
        name = request.path_params["name"]
        given = form.chunking_settings
        settings = parse_chunking_settings(given) if given else None
        kind = parse_input_type(form.input_type)
        (chunks,) = await self._gateway.inference.chunk(name, [form.text], settings, kind)
        return json_response(
            {
                "utf16": [[one.start_utf16, one.end_utf16] for one in chunks],
                "codepoints": [[one.start, one.end] for one in chunks],
            }
        )

    def routes(self) -> Sequence[ApiRoute]:
        """The rows of these verbs."""
        one = "/endpoints/{name}"
        return (
            ApiRoute(method="GET", path="/endpoints", answer=self.list, summary="Every endpoint, by name."),
            ApiRoute(
                method="POST",
                path="/endpoints",
                answer=self.add,
                summary="Registers an endpoint: it is called before it is stored.",
                takes=RegistrationForm,
                example=_EXAMPLE,
                status=201,
            ),
            ApiRoute(method="GET", path=one, answer=self.show, summary="One endpoint."),
            ApiRoute(
                method="PATCH",
                path=one,
                answer=self.edit,
                summary="Changes settings: what is absent stays, null brings the default back.",
                takes=EndpointForm,
                partial=True,
                example={"rate_limit": {"requests_per_minute": 300}, "enabled": True},
            ),
            ApiRoute(
                method="DELETE",
                path=one,
                answer=self.remove,
                summary="Forgets an endpoint and its token; 409 with who uses it.",
                query={"force": "true: whoever uses it"},
                status=204,
            ),
            *self._verbs(one),
        )

    def _verbs(self, one: str) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="POST",
                path=f"{one}/clone",
                answer=self.clone,
                summary="Registers it once more under another name.",
                takes=CloneForm,
                example={"name": "e5-two"},
                status=201,
            ),
            ApiRoute(
                method="POST",
                path=f"{one}/chunk",
                answer=self.chunk,
                summary="The places of the chunks that the endpoint cuts a text into; the model is not called.",
                takes=ChunkForm,
                example={"text": "One sentence. Another one."},
            ),
            ApiRoute(
                method="POST",
                path=f"{one}/check",
                answer=self.check,
                summary="Looks whether the registered model still answers.",
            ),
            ApiRoute(
                method="POST",
                path=f"{one}/accept",
                answer=self.accept,
                summary="Takes what runs there now for the registered model.",
            ),
        )

    def _shown(self, name: str) -> dict[str, Any]:
        return _all_shown(self._gateway, [self._gateway.registry.find(name)])[0]


def _all_shown(gateway: Gateway, endpoints: Sequence[Endpoint]) -> list[dict[str, Any]]:
    """Each endpoint with its settings, its facts, and its state at this moment."""
    pipelines, unready = gateway.pipelines(), gateway.startup.unready()
    return [
        {
            **endpoint_json(endpoint, gateway.registry.token_hint(endpoint.name)),
            "state": state_of(gateway, endpoint, pipelines, unready).kind,
        }
        for endpoint in endpoints
    ]


def _forced(request: Request) -> bool:
    word = request.query_params.get("force", "false")
    if word not in {"true", "false"}:
        raise InvalidRequest("[force] is true or false.")
    return word == "true"
