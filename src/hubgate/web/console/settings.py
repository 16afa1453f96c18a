"""The settings page: what belongs to the whole gate, and what it is made of."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from types import MappingProxyType

from starlette.responses import Response

from hubgate import __version__
from hubgate.core.chunking import icu_version
from hubgate.domain.errors import HubgateError
from hubgate.domain.secret import Secret
from hubgate.domain.token_hosts import DEFAULT_HOSTS
from hubgate.service.gateway import Gateway
from hubgate.web.console.page_context import Visit

_EMPTY = MappingProxyType({"hosts": "\n".join(DEFAULT_HOSTS)})


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
            hosts = form.get("hosts", "").split() or DEFAULT_HOSTS
            await self._gateway.connect(form.get("name", ""), Secret(form.get("token", "")), hosts)
        except HubgateError as error:
            return self._page(visit, error, form)
        return visit.go("/ui/settings")

    async def ask_token(self, visit: Visit) -> Response:
        """The form for another token of a connection, or other hosts."""
        connection = self._gateway.connection(visit.request.path_params["name"])
        form = {"hosts": "\n".join(connection.hosts)}
        return visit.page("connection.html", name=connection.name, form=form, error=None, faults={})

    async def reconnect(self, visit: Visit) -> Response:
        """Replace a connection's token, its hosts, or both."""
        name, form = visit.request.path_params["name"], await visit.form()
        token = Secret(form["token"]) if form.get("token") else None
        try:
            await self._gateway.reconnect(name, token, form.get("hosts", "").split() or None)
        except HubgateError as error:
            return visit.page("connection.html", name=name, form=form, error=error, faults={})
        return visit.go("/ui/settings")

    async def disconnect(self, visit: Visit) -> Response:
        """Forget a token."""
        try:
            await self._gateway.disconnect(visit.request.path_params["name"])
        except HubgateError as error:
            return self._page(visit, error)
        return visit.go("/ui/settings")

    def _page(
        self, visit: Visit, error: HubgateError | None = None, form: Mapping[str, str] = _EMPTY
    ) -> Response:
        connections = [
            (one, self._gateway.users_of_connection(one.name)) for one in self._gateway.connections()
        ]
        about = (("hubgate", __version__), ("python", platform.python_version()), ("icu", icu_version()))
        return visit.page(
            "settings.html", about=about, connections=connections, error=error, form=form, faults={}
        )
