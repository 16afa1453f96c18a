"""`/api/gates`: the gateways of a shared database, and which changes they follow."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from hubgate.service.gateway import Gateway
from hubgate.web.admin.openapi import ApiRoute, json_response


class GatesApi:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def gates(self, request: Request) -> Response:
        gates = self._gateway.gates
        if gates is None:
            return json_response({"version": 0, "gates": []})
        version, all_gates = await gates.newest(), await gates.all()
        return json_response(
            {
                "version": version,
                "gates": [
                    {
                        "name": gate.name,
                        "state": "silent" if gates.is_silent(gate) else gate.state,
                        "version": gate.version,
                        "hubgate": gate.software,
                        "revision": gate.revision,
                        "secret_keys": gate.keys,
                        "started_at": gate.started_at,
                        "silent_seconds": round(gate.silent, 1),
                    }
                    for gate in all_gates
                ],
            }
        )

    def routes(self) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="GET",
                path="/gates",
                handler=self.gates,
                summary="Lists the gateways that share the database, and which changes they follow.",
            ),
        )
