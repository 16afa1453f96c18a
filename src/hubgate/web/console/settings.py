"""The settings page with its connections and configuration file, and the audit log."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from starlette.responses import Response

from hubgate import __version__
from hubgate.core.chunking import icu_version
from hubgate.domain.errors import HubgateError
from hubgate.domain.secret import Secret
from hubgate.domain.token_hosts import DEFAULT_HOSTS
from hubgate.service.gateway import Gateway
from hubgate.service.inference.vector_cache import VectorMemory
from hubgate.service.keys.access import Access
from hubgate.web.console.page_context import PageContext
from hubgate.web.schemas.configuration import Configuration

CHANGES_PER_PAGE = 50
AUDIT_VERBS = frozenset(
    {
        *("endpoint.add", "endpoint.change", "endpoint.remove", "endpoint.diagnose"),
        *("connection.add", "connection.change", "connection.remove", "token.refuse"),
        *("key.create", "key.change", "key.revoke"),
        *("session.begin", "session.end", "session.refuse", "cache.clear"),
    }
)
"""Changes with a translation, `audit.<verb>`; the page shows others by their names in the API."""
_EMPTY_FORM = MappingProxyType({"hosts": "\n".join(DEFAULT_HOSTS)})


class SettingsPage:
    """Connections and versions."""

    def __init__(self, gateway: Gateway, memory: VectorMemory | None) -> None:
        self._gateway = gateway
        self._memory = memory

    async def show(self, context: PageContext) -> Response:
        return self._render(context)

    async def connect(self, context: PageContext) -> Response:
        form = await context.form()
        try:
            hosts = form.get("hosts", "").split() or DEFAULT_HOSTS
            await self._gateway.connections.add(form.get("name", ""), Secret(form.get("token", "")), hosts)
        except HubgateError as error:
            return self._render(context, error, form)
        return context.redirect("/ui/settings")

    async def edit(self, context: PageContext) -> Response:
        connection = self._gateway.connections.find(context.request.path_params["name"])
        form = {"hosts": "\n".join(connection.hosts)}
        return context.render(
            "settings/connection.html", name=connection.name, form=form, error=None, faults={}
        )

    async def update(self, context: PageContext) -> Response:
        """Replace a connection's token, its hosts, or both."""
        name, form = context.request.path_params["name"], await context.form()
        token = Secret(form["token"]) if form.get("token") else None
        try:
            await self._gateway.connections.replace(name, token, form.get("hosts", "").split() or None)
        except HubgateError as error:
            return context.render("settings/connection.html", name=name, form=form, error=error, faults={})
        return context.redirect("/ui/settings")

    async def disconnect(self, context: PageContext) -> Response:
        try:
            await self._gateway.connections.remove(context.request.path_params["name"])
        except HubgateError as error:
            return self._render(context, error)
        return context.redirect("/ui/settings")

    def _render(
        self, context: PageContext, error: HubgateError | None = None, form: Mapping[str, str] = _EMPTY_FORM
    ) -> Response:
        connections = [
            (one, self._gateway.connections.users_of(one.name)) for one in self._gateway.connections.all()
        ]
        about = (
            ("hubgate", __version__),
            ("Python", platform.python_version()),
            ("ICU", icu_version()),
            (context.translate("about.cache"), self._memory.store.name if self._memory else "–"),
        )
        return context.render(
            "settings/page.html", about=about, connections=connections, error=error, form=form, faults={}
        )


class ConfigurationPage:
    """Export and import of the configuration as YAML, as `/api/config` does it."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    async def export(self, context: PageContext) -> Response:
        return _yaml_file("hubgate", self._configuration.export())

    async def export_model(self, context: PageContext) -> Response:
        name = context.request.path_params["name"]
        return _yaml_file(name, self._configuration.export_endpoint(name))

    async def apply(self, context: PageContext) -> Response:
        """Apply a configuration, or only show the plan."""
        form = await context.form({"yaml"})
        dry_run = form.get("do") != "apply"
        try:
            steps = await self._configuration.apply(
                form.get("yaml", ""),
                _parse_secrets(form.get("secrets", "")),
                prune="prune" in form,
                dry_run=dry_run,
                own_key=context.session.key_id if context.session else "",
            )
        except HubgateError as error:
            return context.render("settings/plan.html", steps=[], dry_run=dry_run, error=error)
        return context.render("settings/plan.html", steps=steps, dry_run=dry_run, error=None)


class AuditPage:
    """The audit log: who changed what, newest first."""

    def __init__(self, gateway: Gateway, access: Access, more_verbs: Iterable[str] = ()) -> None:
        self._gateway = gateway
        self._access = access
        self._verbs = AUDIT_VERBS.union(more_verbs)

    async def show(self, context: PageContext) -> Response:
        """The newest changes, or those before the change whose number is `?before=`."""
        text = context.request.query_params.get("before", "")
        before = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
        found = await self._gateway.audit.read(CHANGES_PER_PAGE + 1, before)
        shown = found[:CHANGES_PER_PAGE]
        return context.render(
            "settings/audit.html",
            changes=[change for _, change in shown],
            names=self._access.names,
            verbs=self._verbs,
            is_first=before is None,
            older=shown[-1][0] if len(found) > CHANGES_PER_PAGE else None,
        )


def _yaml_file(name: str, text: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}.yaml"'}
    return Response(text, media_type="application/yaml; charset=utf-8", headers=headers)


def _parse_secrets(lines: str) -> dict[str, str]:
    """The values of a configuration's references: `NAME=value`, one per line."""
    pairs = (line.partition("=") for line in lines.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
