"""The page of aliases: setting, moving and removing them."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from hubgate.domain.errors import HubgateError, NewVectors
from hubgate.domain.records import Alias
from hubgate.features.aliases.aliases import Aliases, Move, affected_keys
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.web.console.page_context import PageContext

PATH = "/ui/aliases"
AUDIT_VERBS = ("alias.set", "alias.remove")


class AliasesPage:
    def __init__(self, aliases: Aliases, gateway: Gateway, access: Access) -> None:
        self._aliases = aliases
        self._gateway = gateway
        self._access = access

    async def show(self, context: PageContext) -> Response:
        return self._render(context, {})

    async def set(self, context: PageContext) -> Response:
        """Add an alias or move it. A move to vectors that cannot be compared is confirmed on a page of its own."""
        form = await context.form()
        name, endpoint = form.get("name", ""), form.get("endpoint", "")
        former = self._gateway.live.aliases.get(name)
        try:
            await self._aliases.set(name, endpoint, accept_new_vectors="accept" in form)
        except NewVectors as error:
            move = Move(Alias(name=name, endpoint=endpoint, moved_at=0.0), former)
            keys = affected_keys(move, self._access.list())
            return context.render("aliases/confirm.html", move=move, keys=keys, error=error)
        except HubgateError as error:
            return self._render(context, form, error)
        return context.redirect(PATH)

    async def ask_remove(self, context: PageContext) -> Response:
        alias = self._aliases.find(context.request.path_params["name"])
        keys = self._access.list()
        users = [key.name for key in keys if alias.name in (*key.endpoints, key.default_endpoint)]
        return context.render("aliases/remove.html", alias=alias, users=users)

    async def remove(self, context: PageContext) -> Response:
        await self._aliases.remove(context.request.path_params["name"])
        return context.redirect(PATH)

    def _render(
        self, context: PageContext, form: Mapping[str, str], error: HubgateError | None = None
    ) -> Response:
        endpoints = self._gateway.registry.endpoints()
        return context.render(
            "aliases/list.html",
            aliases=self._aliases.all(),
            endpoints={endpoint.name: endpoint for endpoint in endpoints},
            form=form,
            faults={},
            error=error,
        )
