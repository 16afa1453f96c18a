"""The gate's own API under /api: what the command line and the console use."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.responses import Response

from hubgate import __version__
from hubgate.core.chunking import icu_version
from hubgate.domain.calls import InputType
from hubgate.web.asgi import decode
from hubgate.web.shapes import EndpointForm, endpoint_json

if TYPE_CHECKING:
    from starlette.requests import Request

    from hubgate.domain.keys import Key
    from hubgate.service.access import Access
    from hubgate.service.gateway import Gateway
    from hubgate.service.memory import VectorMemory

T = TypeVar("T")


class KeyForm(msgspec.Struct, forbid_unknown_fields=True):
    """What an operator sends to create a gateway key."""

    name: str
    admin: bool = False
    default_endpoint: str | None = None
    bulk: bool = False
    input_type: InputType | None = None


_ENDPOINT = msgspec.json.Decoder(EndpointForm)
_KEY = msgspec.json.Decoder(KeyForm)


class Api:
    """Endpoints and keys, for admins: docs/api.md lists the routes."""

    def __init__(self, gateway: Gateway, access: Access, memory: VectorMemory | None) -> None:
        self._gateway = gateway
        self._access = access
        self._memory = memory

    async def about(self, request: Request) -> Response:
        """Versions."""
        return _json({"hubgate": __version__, "python": platform.python_version(), "icu": icu_version()})

    async def list_endpoints(self, request: Request) -> Response:
        """Every endpoint."""
        return _json({"endpoints": [self._shown(e.name) for e in self._gateway.endpoints()]})

    async def show_endpoint(self, request: Request) -> Response:
        """One endpoint."""
        return _json(self._shown(request.path_params["name"]))

    async def add_endpoint(self, request: Request) -> Response:
        """Register an endpoint: it is called before it is stored."""
        draft, token = decode(await request.body(), _ENDPOINT).endpoint()
        added = await self._gateway.register(draft, token)
        return _json(self._shown(added.name), 201)

    async def remove_endpoint(self, request: Request) -> Response:
        """Forget an endpoint."""
        await self._gateway.remove(request.path_params["name"])
        return Response(status_code=204)

    async def check_endpoint(self, request: Request) -> Response:
        """Look whether the registered model still answers; 424 with what changed, if it does not."""
        name = request.path_params["name"]
        await self._gateway.check(name)
        return _json(self._shown(name))

    async def accept_endpoint(self, request: Request) -> Response:
        """Take what runs there now for the registered model."""
        name = request.path_params["name"]
        await self._gateway.accept(name)
        return _json(self._shown(name))

    async def cache_stats(self, request: Request) -> Response:
        """How much is remembered, and how often that helped since the gate started."""
        if self._memory is None:
            return _json({"enabled": False})
        endpoints = {
            name: {"hits": pipeline.cached.hits, "misses": pipeline.cached.misses}
            for name, pipeline in self._gateway.pipelines().items()
            if pipeline.cached
        }
        return _json({"enabled": True, **await self._memory.stats(), "endpoints": endpoints})

    async def clear_cache(self, request: Request) -> Response:
        """Forget all remembered vectors."""
        if self._memory is not None:
            await self._memory.clear()
        return Response(status_code=204)

    async def list_keys(self, request: Request) -> Response:
        """Every gateway key, without the keys themselves."""
        return _json({"keys": [_key_json(key) for key in self._access.list()]})

    async def create_key(self, request: Request) -> Response:
        """Create a gateway key; it is shown this once."""
        form = decode(await request.body(), _KEY)
        if form.default_endpoint is not None:
            self._gateway.find(form.default_endpoint)
        key, plain = await self._access.create(
            form.name,
            admin=form.admin,
            default_endpoint=form.default_endpoint,
            bulk=form.bulk,
            input_type=form.input_type,
        )
        return _json({**_key_json(key), "key": plain}, 201)

    async def revoke_key(self, request: Request) -> Response:
        """Revoke a key, by its id or name; it stops at once."""
        await self._access.revoke(request.path_params["key"])
        return Response(status_code=204)

    async def rotate_secret(self, request: Request) -> Response:
        """Seal every token anew under a new secret key."""
        return _json({"resealed": await self._gateway.rotate_secret()})

    def _shown(self, name: str) -> dict[str, Any]:
        return endpoint_json(self._gateway.find(name), self._gateway.token_hint(name))


def _key_json(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "admin": key.admin,
        "default_endpoint": key.default_endpoint,
        "bulk": key.bulk,
        "input_type": key.input_type,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
    }


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
