"""What every feature declares."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.settings import Settings
from hubgate.store.schema.versions import Schema, register
from hubgate.store.store import SqlStore
from hubgate.upstreams.hub.client import HubClient
from hubgate.web.console.folders import add_folder
from hubgate.web.parts import Parts


@dataclass(frozen=True, slots=True)
class Core:
    """What features are built on."""

    settings: Settings
    store: SqlStore
    gateway: Gateway
    """Its endpoints are not loaded yet when a feature opens."""
    access: Access
    hub: HubClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A feature."""

    open: Callable[[Core], AbstractAsyncContextManager[Parts]]
    """Called at each start."""
    folder: Path
    """It has `templates/` and `locales/`, if there are pages. Templates are found as `<name of the folder>/<file>`."""
    schema: Schema | None = None

    def register(self) -> None:
        """Make its tables, templates and messages known."""
        if self.schema is not None:
            register(self.schema)
        add_folder(self.folder)


@asynccontextmanager
async def open_features(features: Sequence[Feature], core: Core) -> AsyncIterator[Parts]:
    """Open features in order, and close them in reverse; their parts together."""
    async with AsyncExitStack() as opened:
        yield Parts.joined([await opened.enter_async_context(each.open(core)) for each in features])
