"""`/api/keys`: gateway keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubgate.domain.records import Key
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.admin.paging import list_response, page_parameters, requested_page
from hubgate.web.http.asgi import decode, read_json_body
from hubgate.web.schemas.key import KeyForm, edit_key

_KEY = msgspec.json.Decoder(KeyForm)
_CHANGES = msgspec.json.Decoder(dict[str, Any])


class KeysApi:
    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access

    async def list(self, request: Request) -> Response:
        keys = self._access.list(*requested_page(request))
        return await list_response("keys", map(key_json, keys))

    async def create(self, request: Request) -> Response:
        form = decode(await read_json_body(request), _KEY)
        self._check(form.default_endpoint, *form.endpoints)
        key, plain = await self._access.create(form.name, **form.rights())
        return json_response({**key_json(key), "key": plain}, 201)

    async def edit(self, request: Request) -> Response:
        given = decode(await read_json_body(request), _CHANGES)
        which = request.path_params["key"]
        old = self._access.find(which)
        form = edit_key(old, given)
        self._check(
            *{form.default_endpoint, *form.endpoints}.difference({old.default_endpoint, *old.endpoints})
        )
        changed = await self._access.change(which, name=form.name, **form.rights())
        return json_response(key_json(changed))

    async def revoke(self, request: Request) -> Response:
        await self._access.revoke(request.path_params["key"])
        return Response(status_code=204)

    def _check(self, *names: str | None) -> None:
        """Check that these are endpoints or aliases.

        Raises:
            EndpointNotFound: one of them is not.
        """
        for name in names:
            if name is not None:
                self._gateway.registry.resolve(name)

    def routes(self) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="GET",
                path="/keys",
                handler=self.list,
                summary="Lists valid keys, without their secrets, oldest first.",
                query=page_parameters("the id of a key"),
            ),
            ApiRoute(
                method="POST",
                path="/keys",
                handler=self.create,
                summary="Creates a key. Its secret is only in this response.",
                body=KeyForm,
                example={"name": "dify", "endpoints": ["e5"], "requests_per_minute": 600},
                status=201,
            ),
            ApiRoute(
                method="PATCH",
                path="/keys/{key:path}",
                handler=self.edit,
                summary="Changes a key by its id or name. Absent fields stay, null restores the default.",
                body=KeyForm,
                partial=True,
                example={"bulk": True, "expires_at": 1924992000},
            ),
            ApiRoute(
                method="DELETE",
                path="/keys/{key:path}",
                handler=self.revoke,
                summary="Revokes a key by its id or name, with immediate effect.",
                status=204,
            ),
        )


def key_json(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "admin": key.admin,
        "default_endpoint": key.default_endpoint,
        "bulk": key.bulk,
        "input_type": key.input_type,
        "endpoints": key.endpoints,
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "expires_at": key.expires_at,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
    }
