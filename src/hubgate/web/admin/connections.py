"""The gate's own API: connections, which are stored tokens under names."""

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
from hubgate.web.http.asgi import decode


class ConnectionForm(msgspec.Struct, forbid_unknown_fields=True):
    """What is sent to store a token."""

    name: str
    token: str
    """Several stand one a line."""
    hosts: list[str] = msgspec.field(default_factory=lambda: [*DEFAULT_HOSTS])
    """Where it may be sent."""


class ConnectionChanges(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is sent to change a connection."""

    token: str | None = None
    hosts: list[str] | None = None
    """More of them want the token again."""


_CONNECTION = msgspec.json.Decoder(ConnectionForm)
_CHANGES = msgspec.json.Decoder(ConnectionChanges)


class ConnectionsApi:
    """Storing tokens under names, replacing and forgetting them."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def list(self, request: Request) -> Response:
        """Every connection, each token as its last characters."""
        return json_response(
            {"connections": [self._shown(one.name) for one in self._gateway.connections.all()]}
        )

    async def add(self, request: Request) -> Response:
        """Store a token."""
        form = decode(await request.body(), _CONNECTION)
        await self._gateway.connections.add(form.name, Secret(form.token), form.hosts)
        return json_response(self._shown(form.name), 201)

    async def edit(self, request: Request) -> Response:
        """Replace the token or the hosts; the endpoints that use the token use the new one at once."""
        name, form = request.path_params["name"], decode(await request.body(), _CHANGES)
        token = None if form.token is None else Secret(form.token)
        await self._gateway.connections.replace(name, token, form.hosts)
        return json_response(self._shown(name))

    async def remove(self, request: Request) -> Response:
        """Forget a token; 409 with who uses it."""
        await self._gateway.connections.remove(request.path_params["name"])
        return Response(status_code=204)

    def routes(self) -> Sequence[ApiRoute]:
        """The rows of these verbs."""
        one, example = "/connections/{name}", {"token": "hf_…"}
        return (
            ApiRoute(
                method="GET",
                path="/connections",
                answer=self.list,
                summary="The stored tokens by name, each as its last characters, and who uses them.",
            ),
            ApiRoute(
                method="POST",
                path="/connections",
                answer=self.add,
                summary="Stores a token, or several, under a name, and the hosts that it may be sent to.",
                takes=ConnectionForm,
                example={"name": "my-team", **example, "hosts": [*DEFAULT_HOSTS]},
                status=201,
            ),
            ApiRoute(
                method="PATCH",
                path=one,
                answer=self.edit,
                summary="Replaces the token or its hosts; endpoints use the new token at once. More hosts want the token.",
                takes=ConnectionChanges,
                example=example,
            ),
            ApiRoute(
                method="DELETE",
                path=one,
                answer=self.remove,
                summary="Forgets a token; 409 while an endpoint uses it.",
                status=204,
            ),
        )

    def _shown(self, name: str) -> dict[str, Any]:
        connection = self._gateway.connections.find(name)
        token = connection.token
        return {
            "name": name,
            "tokens": [one.hint for one in token.each()] if token else [],
            "hosts": connection.hosts,
            "created_at": connection.created_at,
            "endpoints": self._gateway.connections.users_of(name),
        }
