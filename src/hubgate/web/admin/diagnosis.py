"""`/api/diagnose`: checks an endpoint step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from hubgate.domain.diagnosis import Finding, Outcome
from hubgate.domain.endpoint import Endpoint, Task
from hubgate.service.gateway import Gateway
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.http.asgi import decode, read_json_body
from hubgate.web.schemas.endpoint import EndpointForm

_NDJSON = "application/x-ndjson"
_FORM = msgspec.json.Decoder(EndpointForm)


class DiagnosisApi:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def registered(self, request: Request) -> Response:
        await request.body()  # a disconnect is noticed only after the body was read
        endpoint = self._gateway.registry.find(request.path_params["name"])
        findings = await self._gateway.registry.diagnose(endpoint, keep_token=True)
        return await _respond(request, endpoint, findings)

    async def draft(self, request: Request) -> Response:
        endpoint, token = decode(await read_json_body(request), _FORM).endpoint()
        return await _respond(request, endpoint, await self._gateway.registry.diagnose(endpoint, token))

    def routes(self) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="POST",
                path="/endpoints/{name}/diagnose",
                handler=self.registered,
                summary=f"Checks the connection to its model step by step; with Accept: {_NDJSON}, one line per finished step.",
            ),
            ApiRoute(
                method="POST",
                path="/diagnose",
                handler=self.draft,
                summary="The same for an endpoint that is not registered; stores nothing.",
                body=EndpointForm,
                example={"name": "e5", "url": "https://x1.us-east-1.aws.endpoints.huggingface.cloud"},
            ),
        )


async def _respond(request: Request, endpoint: Endpoint, findings: AsyncIterator[Finding]) -> Response:
    if _NDJSON in request.headers.get("accept", ""):
        lines = (msgspec.json.encode(_finding_json(finding, endpoint)) + b"\n" async for finding in findings)
        return StreamingResponse(lines, media_type=_NDJSON)
    steps = [finding async for finding in findings]
    is_well = all(step.outcome is not Outcome.FAILED for step in steps)
    return json_response({"well": is_well, "steps": [_finding_json(step, endpoint) for step in steps]})


def _finding_json(finding: Finding, endpoint: Endpoint) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "step": finding.step,
        "outcome": finding.outcome,
        "milliseconds": round(finding.seconds * 1000, 1),
    }
    if finding.replica:
        shown["replica"] = finding.replica
    if finding.outcome is Outcome.FAILED:
        shown |= {"cause": finding.cause, "message": finding.message, "remedy": finding.remedy}
    elif finding.message:
        shown["message"] = finding.message
    if finding.facts and endpoint.task is Task.TEXT_EMBEDDING:
        tested = replace(endpoint, facts=finding.facts)
        shown |= {
            "prefixes": tested.effective_prefixes,
            "prefix_sources": tested.prefix_sources,
            "warnings": finding.facts.warnings,
        }
    return shown
