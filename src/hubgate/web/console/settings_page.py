"""The settings page: what belongs to the whole gate, and what it is made of."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from hubgate import __version__
from hubgate.core.chunking import icu_version
from hubgate.domain.errors import HubgateError
from hubgate.domain.secret import Secret

if TYPE_CHECKING:
    from starlette.responses import Response

    from hubgate.service.gateway import Gateway
    from hubgate.web.console.visit import Visit


class SettingsPage:
    """Connections, and the versions."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def show(self, visit: Visit) -> Response:
        """The page."""
        return self._page(visit)

    async def connect(self, visit: Visit) -> Response:
        """Store a token under a name."""
        form = await visit.form()
        try:
            await self._gateway.connect(form.get("name", ""), Secret(form.get("token", "")))
        except HubgateError as error:
            return self._page(visit, error, form.get("name", ""))
        return visit.go("/ui/settings")

    async def ask_token(self, visit: Visit) -> Response:
        """The form for another token of a connection."""
        connection = self._gateway.connection(visit.request.path_params["name"])
        return visit.page("connection.html", name=connection.name, error=None, faults={})

    async def reconnect(self, visit: Visit) -> Response:
        """Replace a connection's token."""
        name = visit.request.path_params["name"]
        try:
            await self._gateway.reconnect(name, Secret((await visit.form()).get("token", "")))
        except HubgateError as error:
            return visit.page("connection.html", name=name, error=error, faults={})
        return visit.go("/ui/settings")

    async def disconnect(self, visit: Visit) -> Response:
        """Forget a token."""
        try:
            await self._gateway.disconnect(visit.request.path_params["name"])
        except HubgateError as error:
            return self._page(visit, error)
        return visit.go("/ui/settings")

    def _page(self, visit: Visit, error: HubgateError | None = None, named: str = "") -> Response:
        connections = [
            (one, self._gateway.users_of_connection(one.name)) for one in self._gateway.connections()
        ]
        about = (("hubgate", __version__), ("python", platform.python_version()), ("icu", icu_version()))
        return visit.page(
            "settings.html", about=about, connections=connections, error=error, named=named, faults={}
        )
