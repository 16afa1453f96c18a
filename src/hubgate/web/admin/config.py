"""`/api/config`: exports and applies the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubgate.domain.errors import InvalidRequest
from hubgate.service.configuration import Step
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.http.asgi import decode, read_json_body
from hubgate.web.http.errors import error_json
from hubgate.web.http.request_context import context_of
from hubgate.web.schemas.configuration import Configuration


class ConfigForm(msgspec.Struct, forbid_unknown_fields=True):
    yaml: str
    secrets: dict[str, str] = {}
    """Values for `${NAME}` in the YAML, by name."""
    dry_run: bool = False
    prune: bool = False
    accept_new_vectors: bool = False
    """Whether aliases may be moved to vectors that cannot be compared with those before."""


_FORM = msgspec.json.Decoder(ConfigForm)


class ConfigApi:
    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    async def export(self, request: Request) -> Response:
        """YAML without secrets."""
        only = request.query_params.get("endpoint")
        text = self._configuration.export() if only is None else self._configuration.export_endpoint(only)
        word = request.query_params.get("format", "yaml")
        if word not in {"yaml", "json"}:
            raise InvalidRequest("[format] must be yaml or json.")
        if word == "json":
            return json_response({"yaml": text})
        return Response(text, media_type="application/yaml")

    async def apply(self, request: Request) -> Response:
        form = decode(await read_json_body(request), _FORM)
        key = context_of(request.scope).key
        steps = await self._configuration.apply(
            form.yaml,
            form.secrets,
            prune=form.prune,
            dry_run=form.dry_run,
            own_key=key.id if key else "",
            accept_new_vectors=form.accept_new_vectors,
        )
        failed = sum(step.failure is not None for step in steps)
        shown = [_step_json(step) for step in steps]
        return json_response({"applied": not form.dry_run, "failed": failed, "steps": shown})

    def routes(self) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="GET",
                path="/config",
                handler=self.export,
                content_types=("application/yaml", "application/json"),
                summary="Returns the configuration as YAML, without secrets.",
                query={
                    "endpoint": "only this endpoint",
                    "format": 'json: returns {"yaml": …}',
                },
            ),
            ApiRoute(
                method="POST",
                path="/config",
                handler=self.apply,
                summary="Applies a configuration; a dry run returns the steps only.",
                body=ConfigForm,
                example={
                    "yaml": "version: 1\nkeys:\n  dify: {requests_per_minute: 600}\n",
                    "secrets": {"TEAM_TOKEN": "hf_…"},
                    "dry_run": True,
                },
            ),
        )


def _step_json(step: Step) -> dict[str, Any]:
    shown: dict[str, Any] = {"action": step.action, "kind": step.kind, "name": step.name}
    if step.changes:
        shown["changes"] = step.changes
    if step.key is not None:
        shown["key"] = step.key
    if step.failure is not None:
        shown["failure"] = error_json(step.failure)
    return shown
