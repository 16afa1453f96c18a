"""Aliases: what opens with the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hubgate.domain.records import Kind
from hubgate.features.aliases.aliases import Aliases
from hubgate.features.aliases.api import AliasesApi
from hubgate.features.aliases.compare import ComparePage
from hubgate.features.aliases.pages import AUDIT_VERBS, PATH, AliasesPage
from hubgate.features.aliases.store import SCHEMA, SqlAliases
from hubgate.features.feature import Core, Feature
from hubgate.service.gateway import Gateway
from hubgate.store.store import SqlStore
from hubgate.web.console.page_context import NavigationEntry
from hubgate.web.parts import Page, Parts


@asynccontextmanager
async def _open(core: Core) -> AsyncIterator[Parts]:
    aliases = assemble(core.store, core.gateway)
    page, compare = AliasesPage(aliases, core.gateway, core.access), ComparePage(core.gateway)
    yield Parts(
        api=AliasesApi(aliases, core.gateway, core.access).routes(),
        pages=(
            Page("GET", PATH, page.show),
            Page("POST", PATH, page.set),
            Page("GET", f"{PATH}/compare", compare.show),
            Page("POST", f"{PATH}/compare", compare.run),
            Page("GET", f"{PATH}/{{name}}/remove", page.ask_remove),
            Page("POST", f"{PATH}/{{name}}/remove", page.remove),
        ),
        navigation=(NavigationEntry(30, "aliases", PATH),),
        audit_verbs=AUDIT_VERBS,
        follows=((Kind.ALIAS, aliases.follow),),
    )


def assemble(store: SqlStore, gateway: Gateway) -> Aliases:
    """The aliases of a gateway. From then on, no endpoint gets the name of one, and none that one leads to is removed."""
    rows = SqlAliases(store.database, store.audit, store.feed)
    store.checks_of_new.append(rows.check_new)
    store.checks_of_removal.append(rows.check_removal)
    aliases = Aliases(rows, gateway.live)

    async def set_alias(name: str, endpoint: str, accept_new_vectors: object) -> None:
        await aliases.set(name, endpoint, accept_new_vectors=bool(accept_new_vectors))

    gateway.ports.set_alias = set_alias
    gateway.ports.remove_alias = aliases.remove
    return aliases


FEATURE = Feature(open=_open, folder=Path(__file__).parent, schema=SCHEMA)
