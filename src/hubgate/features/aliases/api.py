"""`/api/aliases`: names that applications use for endpoints, and that can be moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubgate.domain.errors import InUse
from hubgate.domain.records import Alias
from hubgate.features.aliases.aliases import Aliases, affected_keys
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.admin.paging import is_forced
from hubgate.web.http.asgi import decode, read_json_body


class AliasForm(msgspec.Struct, forbid_unknown_fields=True):
    endpoint: str
    accept_new_vectors: bool = False
    """Whether it may be moved to vectors that cannot be compared with those before."""


_ALIAS = msgspec.json.Decoder(AliasForm)


class AliasesApi:
    def __init__(self, aliases: Aliases, gateway: Gateway, access: Access) -> None:
        self._aliases = aliases
        self._gateway = gateway
        self._access = access

    async def list(self, _: Request) -> Response:
        return json_response({"aliases": [self._alias_json(alias) for alias in self._aliases.all()]})

    async def set(self, request: Request) -> Response:
        form = decode(await read_json_body(request), _ALIAS)
        name, aliases = request.path_params["name"], self._aliases
        move = await aliases.set(name, form.endpoint, accept_new_vectors=form.accept_new_vectors)
        keys = affected_keys(move, self._access.list())
        shown = {"former": move.former, "keys": keys._asdict(), "new_vectors": move.new_vectors}
        return json_response(self._alias_json(move.alias) | shown)

    async def remove(self, request: Request) -> Response:
        name = request.path_params["name"]
        self._aliases.find(name)
        users = [key.name for key in self._access.list() if name in (*key.endpoints, key.default_endpoint)]
        if users and not is_forced(request):
            raise InUse(
                f"Alias [{name}] is used by key{'s' if users[1:] else ''} {', '.join(users)}.",
                remedy="Change those first, or force it: they would then call an endpoint that does not exist.",
            )
        await self._aliases.remove(name)
        return Response(status_code=204)

    def routes(self) -> Sequence[ApiRoute]:
        one = "/aliases/{name}"
        return (
            ApiRoute(method="GET", path="/aliases", handler=self.list, summary="Lists aliases."),
            ApiRoute(
                method="PUT",
                path=one,
                handler=self.set,
                summary="Adds an alias, or moves it to another endpoint; 409 if its vectors cannot be compared with "
                "those before.",
                body=AliasForm,
                example={"endpoint": "e5-v2", "accept_new_vectors": True},
            ),
            ApiRoute(
                method="DELETE",
                path=one,
                handler=self.remove,
                summary="Deletes an alias; 409 with the keys that use it, if any.",
                query={"force": "true: delete it even if it is used"},
                status=204,
            ),
        )

    def _alias_json(self, alias: Alias) -> dict[str, Any]:
        endpoint = (
            self._gateway.registry.find(alias.endpoint) if alias.endpoint in self._gateway.live else None
        )
        return {
            "name": alias.name,
            "endpoint": alias.endpoint,
            "task": endpoint.task if endpoint else None,
            "model": endpoint.model_version if endpoint else None,
            "moved_at": alias.moved_at,
        }
