"""The whole configuration as YAML, from the settings page: exported, its plan shown, applied."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from hubgate.domain.errors import HubgateError, InvalidRequest
from hubgate.service.access import ADMIN
from hubgate.service.config import Config
from hubgate.web.api_config import MOST_CHARACTERS
from hubgate.web.config_yaml import read_config, write_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hubgate.domain.endpoint import Endpoint
    from hubgate.service.access import Access
    from hubgate.service.gateway import Gateway
    from hubgate.web.console.visit import Visit


class ConfigPage:
    """Exporting and applying, as `/api/config` does."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access
        self._config = Config(gateway, access)

    async def export(self, visit: Visit) -> Response:
        """Everything but secrets."""
        keys = [key for key in self._access.list() if key.name != ADMIN]
        endpoints = self._with_tokens(self._gateway.endpoints())
        return _file("hubgate", write_config(self._gateway.stored_tokens, endpoints, keys))

    async def export_model(self, visit: Visit) -> Response:
        """One endpoint, without its token."""
        endpoint = self._gateway.find(visit.request.path_params["name"])
        return _file(endpoint.name, write_config([], self._with_tokens([endpoint]), []))

    async def apply(self, visit: Visit) -> Response:
        """Bring about what a configuration says; or only show what that takes."""
        form = await visit.form()
        dry_run = form.get("do") != "apply"
        try:
            text = form.get("yaml", "")
            if len(text) > MOST_CHARACTERS:
                raise InvalidRequest(f"A configuration has at most {MOST_CHARACTERS} characters.")
            tokens = {
                *(("endpoint", one.name) for one, has in self._with_tokens(self._gateway.endpoints()) if has),
                *(("connection", name) for name in self._gateway.stored_tokens),
            }
            wanted = await asyncio.to_thread(read_config, text, _secrets(form.get("secrets", "")), tokens)
            own = visit.session.key_id if visit.session else ""
            steps = await self._config.apply(wanted, prune="prune" in form, dry_run=dry_run, spared_key=own)
        except HubgateError as error:
            return visit.page("plan.html", steps=[], dry_run=dry_run, error=error)
        return visit.page("plan.html", steps=steps, dry_run=dry_run, error=None)

    def _with_tokens(self, endpoints: Iterable[Endpoint]) -> list[tuple[Endpoint, bool]]:
        """Each with whether it has a token of its own."""
        return [(one, self._gateway.token_hint(one.name) is not None) for one in endpoints]


def _file(name: str, text: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}.yaml"'}
    return Response(text, media_type="application/yaml; charset=utf-8", headers=headers)


def _secrets(lines: str) -> dict[str, str]:
    """The values of a configuration's references: `NAME=value`, one a line."""
    pairs = (line.partition("=") for line in lines.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
