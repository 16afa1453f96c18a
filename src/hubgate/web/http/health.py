"""Health checks, metrics, and the root path."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from hubgate import __version__
from hubgate.core.off_loop import in_slices
from hubgate.domain.endpoint import Source
from hubgate.domain.errors import NotPermitted
from hubgate.service.gateway import Gateway
from hubgate.service.metrics import Meter
from hubgate.service.prometheus import CONTENT_TYPE
from hubgate.web.http.request_context import context_of

# Elasticsearch's clients read it from `GET /`: the release whose `_inference` contract hubgate keeps.
ELASTICSEARCH_VERSION = "9.4.2"


class Health:
    def __init__(self, gateway: Gateway, meter: Meter) -> None:
        self._gateway = gateway
        self._meter = meter

    async def alive(self, request: Request) -> Response:
        """200 while the process serves requests."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """503 while the very first model is being registered, or while hubgate drains before a stop; else 200.

        The body has the number of local models that are not ready. One such model must not take hubgate out of a load
        balancer. The path is public, so it shows no names.
        """
        gateway, status = self._gateway, "ready"
        unready = gateway.startup.unready()
        if gateway.draining:
            status = "draining"
        elif unready and not gateway.live.names():
            status = "starting"
        body: dict[str, object] = {"status": status}
        if unready:
            body["unready_endpoints"] = len(unready)
        return JSONResponse(body, 200 if status == "ready" else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format."""
        key = context_of(request.scope).key
        if key is not None and key.endpoints:
            raise NotPermitted(
                "The metrics show every endpoint, and this key may call only some.",
                remedy="Use a key that is not limited to some endpoints.",
            )
        return Response("".join(await in_slices(self._meter.lines())), media_type=CONTENT_TYPE)

    async def front(self, request: Request) -> Response:
        """Redirects a browser to the console; any other client gets Elasticsearch's info."""
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/ui", 303)
        return JSONResponse(
            {
                "name": "hubgate",
                "cluster_name": "hubgate",
                "cluster_uuid": "hubgate",
                "version": {
                    "number": ELASTICSEARCH_VERSION,
                    "build_flavor": "default",
                    "build_type": "hubgate",
                    "build_hash": __version__,
                    "build_date": "1970-01-01T00:00:00.000Z",
                    "build_snapshot": False,
                    "lucene_version": "10.0.0",
                    "minimum_wire_compatibility_version": "8.19.0",
                    "minimum_index_compatibility_version": "8.0.0",
                },
                "tagline": "You Know, for Search",
                "hubgate": {"version": __version__, "local_endpoints": self._local_endpoints(request)},
            }
        )

    def _local_endpoints(self, request: Request) -> list[str]:
        may_call = context_of(request.scope).may_call
        return [
            e.name
            for e in self._gateway.registry.endpoints()
            if e.source is Source.LOCAL and may_call(e.name)
        ]
