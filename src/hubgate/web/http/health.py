"""The probes, the metrics, and what stands at the root."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from hubgate import __version__
from hubgate.domain.endpoint import Source
from hubgate.domain.errors import NotPermitted
from hubgate.service.gateway import Gateway
from hubgate.service.metrics import Meter
from hubgate.web.http.request_context import context_of

# What Elasticsearch's clients read of `GET /`: the release whose `_inference` contract the gate keeps.
ELASTICSEARCH_VERSION = "9.4.2"


class Health:
    """Whether the gate is there, and what it is."""

    def __init__(self, gateway: Gateway, meter: Meter) -> None:
        self._gateway = gateway
        self._meter = meter

    async def alive(self, request: Request) -> Response:
        """200 as long as the process serves."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """200 unless the gateway is about to stop, then 503; and how many local models do not answer.

        One of them must not take the whole gateway out of a load balancer. Anybody may ask, so no name is shown.
        """
        draining = self._gateway.draining
        body: dict[str, object] = {"status": "draining" if draining else "ready"}
        if unready := self._gateway.startup.unready():
            body["unready_endpoints"] = len(unready)
        return JSONResponse(body, 503 if draining else 200)

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format, of all endpoints.

        Raises:
            NotPermitted: the key may not call all of them, and so not see them either.
        """
        key = context_of(request.scope).key
        if key is not None and key.endpoints:
            raise NotPermitted(
                "The metrics tell of every endpoint, and this key may not call all of them.",
                remedy="Use a key without a scope.",
            )
        return Response(self._meter.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def front(self, request: Request) -> Response:
        """The console for a browser; for any other client what Elasticsearch tells of itself."""
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
