"""The gate's own API: the whole configuration, exported and applied."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from hubgate.domain.errors import InvalidRequest
from hubgate.service.access import ADMIN
from hubgate.service.config import Config
from hubgate.web.api_table import ApiRoute, json_response
from hubgate.web.asgi import decode
from hubgate.web.config_yaml import read_config, write_config
from hubgate.web.ticket import ticket_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from hubgate.domain.endpoint import Endpoint
    from hubgate.service.access import Access
    from hubgate.service.config import Step
    from hubgate.service.gateway import Gateway

MOST_CHARACTERS = 1_000_000


class ConfigForm(msgspec.Struct, forbid_unknown_fields=True):
    """What is sent to apply a configuration."""

    yaml: str
    secrets: dict[str, str] = {}
    """The values of its `${NAME}`, by name."""
    dry_run: bool = False
    prune: bool = False


_FORM = msgspec.json.Decoder(ConfigForm)


class ConfigApi:
    """Exporting and applying."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access
        self._config = Config(gateway, access)

    async def export(self, request: Request) -> Response:
        """All endpoints, connections and keys as YAML, or one endpoint; no secret stands in it."""
        only = request.query_params.get("endpoint")
        if only is not None:
            text = write_config([], [self._with_token(only)], [])
        else:
            text = write_config(
                self._gateway.stored_tokens,
                [self._with_token(endpoint.name) for endpoint in self._gateway.endpoints()],
                [key for key in self._access.list() if key.name != ADMIN],
            )
        word = request.query_params.get("format", "yaml")
        if word not in {"yaml", "json"}:
            raise InvalidRequest("[format] is yaml or json.")
        if word == "json":
            return json_response({"yaml": text})
        return Response(text, media_type="application/yaml")

    async def apply(self, request: Request) -> Response:
        """Bring about what a configuration says; or only tell what that takes."""
        form = decode(await request.body(), _FORM)
        if len(form.yaml) > MOST_CHARACTERS:
            raise InvalidRequest(f"A configuration has at most {MOST_CHARACTERS} characters.")
        wanted = await asyncio.to_thread(read_config, form.yaml, form.secrets, self._tokens())
        key = ticket_of(request.scope).key
        steps = await self._config.apply(
            wanted, prune=form.prune, dry_run=form.dry_run, spared_key=key.id if key else ""
        )
        failed = sum(step.failure is not None for step in steps)
        shown = [_step_json(step) for step in steps]
        return json_response({"applied": not form.dry_run, "failed": failed, "steps": shown})

    def routes(self) -> Sequence[ApiRoute]:
        """The rows of these verbs."""
        return (
            ApiRoute(
                method="GET",
                path="/config",
                answer=self.export,
                media=("application/yaml", "application/json"),
                summary="The whole configuration as YAML, without secrets.",
                query={
                    "endpoint": "only this endpoint",
                    "format": 'json: as {"yaml": …}',
                },
            ),
            ApiRoute(
                method="POST",
                path="/config",
                answer=self.apply,
                summary="Brings about what a configuration says, or only tells what that takes.",
                takes=ConfigForm,
                example={
                    "yaml": "version: 1\nkeys:\n  dify: {requests_per_minute: 600}\n",
                    "secrets": {"TEAM_TOKEN": "hf_…"},
                    "dry_run": True,
                },
            ),
        )

    def _with_token(self, name: str) -> tuple[Endpoint, bool]:
        return self._gateway.find(name), self._gateway.token_hint(name) is not None

    def _tokens(self) -> set[tuple[str, str]]:
        """Who has a token: kind and name."""
        endpoints = {e.name for e in self._gateway.endpoints() if self._with_token(e.name)[1]}
        return {("endpoint", name) for name in endpoints} | {
            ("connection", name) for name in self._gateway.stored_tokens
        }


def _step_json(step: Step) -> dict[str, Any]:
    shown: dict[str, Any] = {"action": step.action, "kind": step.kind, "name": step.name}
    if step.changes:
        shown["changes"] = step.changes
    if step.key is not None:
        shown["key"] = step.key
    if step.failure is not None:
        error = step.failure
        shown["failure"] = {"cause": error.cause, "message": error.message, "remedy": error.remedy}
    return shown
