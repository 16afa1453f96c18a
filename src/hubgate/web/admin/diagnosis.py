"""The gate's own API: what is wrong with an endpoint, step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from hubgate.domain.diagnosis import Finding, Outcome
from hubgate.service.gateway import Gateway
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.http.asgi import decode
from hubgate.web.schemas.endpoint import EndpointForm

_LINES = "application/x-ndjson"
_FORM = msgspec.json.Decoder(EndpointForm)


class DiagnosisApi:
    """Diagnoses of registered endpoints, and of those that are yet to be."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def registered(self, request: Request) -> Response:
        """Diagnose a registered endpoint."""
        await request.body()  # as long as it is not read, nobody notices that the client leaves
        endpoint = self._gateway.registry.find(request.path_params["name"])
        return await _told(request, await self._gateway.registry.diagnose(endpoint, keep_token=True))

    async def draft(self, request: Request) -> Response:
        """Diagnose what could be registered; nothing is stored."""
        endpoint, token = decode(await request.body(), _FORM).endpoint()
        return await _told(request, await self._gateway.registry.diagnose(endpoint, token))

    def routes(self) -> Sequence[ApiRoute]:
        """The rows of these verbs."""
        return (
            ApiRoute(
                method="POST",
                path="/endpoints/{name}/diagnose",
                answer=self.registered,
                summary=f"Goes the way to its model step by step; with Accept: {_LINES} a line as each step is done.",
            ),
            ApiRoute(
                method="POST",
                path="/diagnose",
                answer=self.draft,
                summary="The same for an endpoint that is not registered; nothing is stored.",
                takes=EndpointForm,
                example={"name": "e5", "url": "https://x1.us-east-1.aws.endpoints.huggingface.cloud"},
            ),
        )


async def _told(request: Request, findings: AsyncIterator[Finding]) -> Response:
    if _LINES in request.headers.get("accept", ""):
        lines = (msgspec.json.encode(finding_json(finding)) + b"\n" async for finding in findings)
        return StreamingResponse(lines, media_type=_LINES)
    steps = [finding async for finding in findings]
    well = all(step.outcome is not Outcome.FAILED for step in steps)
    return json_response({"well": well, "steps": [finding_json(step) for step in steps]})


def finding_json(finding: Finding) -> dict[str, Any]:
    """One step; what there is to say of it is said of the one that failed, or did not go well at first."""
    shown: dict[str, Any] = {
        "step": finding.step,
        "outcome": finding.outcome,
        "milliseconds": round(finding.seconds * 1000, 1),
    }
    if finding.outcome is Outcome.FAILED:
        shown |= {"cause": finding.cause, "message": finding.message, "remedy": finding.remedy}
    elif finding.message:
        shown["message"] = finding.message
    return shown
