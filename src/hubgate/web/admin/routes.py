"""hubgate's own API: `/api`. See docs/api.md."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from hubgate import __version__
from hubgate.core.chunking import icu_version
from hubgate.web.admin.config import ConfigApi
from hubgate.web.admin.connections import ConnectionsApi
from hubgate.web.admin.diagnosis import DiagnosisApi
from hubgate.web.admin.endpoints import EndpointsApi
from hubgate.web.admin.gates import GatesApi
from hubgate.web.admin.hub import HubApi
from hubgate.web.admin.keys import KeysApi
from hubgate.web.admin.openapi import ApiRoute, json_response, with_openapi
from hubgate.web.admin.records import RecordsApi
from hubgate.web.http.errors import render_error
from hubgate.web.http.face import Face, Services


class Api:
    def __init__(self, services: Services) -> None:
        gateway, access = services.gateway, services.access
        self._gateway = gateway
        self._memory = services.memory
        self._parts = (
            EndpointsApi(gateway, access),
            DiagnosisApi(gateway),
            ConnectionsApi(gateway),
            KeysApi(gateway, access),
            RecordsApi(gateway, access),
            GatesApi(gateway),
            ConfigApi(services.configuration),
        )

    async def about(self, request: Request) -> Response:
        return json_response(
            {"hubgate": __version__, "python": platform.python_version(), "icu": icu_version()}
        )

    async def cache_stats(self, request: Request) -> Response:
        if self._memory is None:
            return json_response({"enabled": False})
        endpoints = {
            name: {"hits": pipeline.cached.hits, "misses": pipeline.cached.misses}
            for name, pipeline in self._gateway.pipelines().items()
            if pipeline.cached
        }
        return json_response({"enabled": True, **await self._memory.stats(), "endpoints": endpoints})

    async def clear_cache(self, request: Request) -> Response:
        if self._memory is not None:
            await self._memory.clear()
        if self._memory is not None or self._gateway.gates is not None:  # other gateways may have a cache
            await self._gateway.record_cleared_cache()
        return Response(status_code=204)

    async def rotate_secret(self, request: Request) -> Response:
        return json_response({"resealed": await self._gateway.rotate_secret()})

    def routes(self) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="GET",
                path="/about",
                handler=self.about,
                summary="Returns the versions of hubgate, Python and ICU.",
            ),
            *(route for part in self._parts for route in part.routes()),
            ApiRoute(
                method="GET",
                path="/cache",
                handler=self.cache_stats,
                summary="Returns the size of the vector cache, and its hits since the start.",
            ),
            ApiRoute(
                method="DELETE",
                path="/cache",
                handler=self.clear_cache,
                summary="Clears the vector cache.",
                status=204,
            ),
            ApiRoute(
                method="POST",
                path="/secret/rotate",
                handler=self.rotate_secret,
                summary="Seals every token under a new secret key; returns how many.",
            ),
        )


def _owns(segments: Sequence[str], is_hugging_face: bool) -> bool:
    return True


def api_routes(services: Services) -> Sequence[ApiRoute]:
    """All routes, also those of features, without the reference."""
    hub = HubApi(services.hub, services.gateway)
    return [*Api(services).routes(), *hub.routes(), *services.parts.api]


def _routes(services: Services) -> Sequence[BaseRoute]:
    return [route.route() for route in with_openapi(api_routes(services))]


FACE = Face(
    name="own",
    owns=_owns,
    render_error=render_error,
    routes=_routes,
    headers=((b"cache-control", b"no-store"),),  # the response of POST /api/keys has a new key
)
