"""`/api/connections`: tokens stored under a name, which several endpoints can use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubgate.domain.secret import Secret
from hubgate.domain.token_hosts import DEFAULT_HOSTS
from hubgate.service.gateway import Gateway
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.http.asgi import decode, read_json_body


class ConnectionForm(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    token: str
    """Several tokens are separated by line breaks."""
    hosts: list[str] = msgspec.field(default_factory=lambda: [*DEFAULT_HOSTS])
    """The hosts to which the token may be sent."""


class ConnectionChanges(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    token: str | None = None
    hosts: list[str] | None = None
    """A new host requires `token` as well, so that an admin key alone cannot redirect a stored token."""


_CONNECTION = msgspec.json.Decoder(ConnectionForm)
_CHANGES = msgspec.json.Decoder(ConnectionChanges)


class ConnectionsApi:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def list(self, request: Request) -> Response:
        return json_response(
            {"connections": [self._connection_json(one.name) for one in self._gateway.connections.all()]}
        )

    async def add(self, request: Request) -> Response:
        form = decode(await read_json_body(request), _CONNECTION)
        await self._gateway.connections.add(form.name, Secret(form.token), form.hosts)
        return json_response(self._connection_json(form.name), 201)

    async def edit(self, request: Request) -> Response:
        name, form = request.path_params["name"], decode(await read_json_body(request), _CHANGES)
        token = None if form.token is None else Secret(form.token)
        await self._gateway.connections.replace(name, token, form.hosts)
        return json_response(self._connection_json(name))

    async def remove(self, request: Request) -> Response:
        await self._gateway.connections.remove(request.path_params["name"])
        return Response(status_code=204)

    def routes(self) -> Sequence[ApiRoute]:
        path, example = "/connections/{name}", {"token": "hf_…"}
        return (
            ApiRoute(
                method="GET",
                path="/connections",
                handler=self.list,
                summary="Lists connections with their tokens' last characters, and the endpoints that use them.",
            ),
            ApiRoute(
                method="POST",
                path="/connections",
                handler=self.add,
                summary="Stores one or more tokens under a name, with the hosts that they may be sent to.",
                body=ConnectionForm,
                example={"name": "my-team", **example, "hosts": [*DEFAULT_HOSTS]},
                status=201,
            ),
            ApiRoute(
                method="PATCH",
                path=path,
                handler=self.edit,
                summary="Replaces the token or its hosts; endpoints use the new token at once. Adding a host requires the token.",
                body=ConnectionChanges,
                example=example,
            ),
            ApiRoute(
                method="DELETE",
                path=path,
                handler=self.remove,
                summary="Deletes a connection; 409 while an endpoint uses it.",
                status=204,
            ),
        )

    def _connection_json(self, name: str) -> dict[str, Any]:
        connection = self._gateway.connections.find(name)
        token = connection.token
        return {
            "name": name,
            "tokens": [one.hint for one in token.each()] if token else [],
            "hosts": connection.hosts,
            "created_at": connection.created_at,
            "endpoints": self._gateway.connections.users_of(name),
        }
