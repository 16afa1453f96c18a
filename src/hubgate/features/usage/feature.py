"""Usage: what opens with the gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hubgate.domain.errors import StoreFailed
from hubgate.features.feature import Core, Feature
from hubgate.features.usage.api import UsageApi
from hubgate.features.usage.pages import UsagePage
from hubgate.features.usage.store import SCHEMA, SqlUsage
from hubgate.features.usage.usage import Usage
from hubgate.web.console.page_context import NavigationEntry
from hubgate.web.http.request_context import RequestContext
from hubgate.web.parts import Page, Parts

_FLUSH_SECONDS = 5.0

_log = logging.getLogger(__name__)


@asynccontextmanager
async def _open(core: Core) -> AsyncIterator[Parts]:
    usage = Usage(SqlUsage(core.store.database), core.gateway.pipelines)
    core.gateway.ports.usage = usage.report

    def count(call: RequestContext, seconds: float) -> None:
        usage.count(
            call.endpoint,
            call.key.id if call.key else "",
            call.cause,
            bulk=call.is_bulk,
            seconds=seconds,
            texts=call.texts,
            prompt_tokens=call.tokens - call.completion_tokens,
            completion_tokens=call.completion_tokens,
            waited=call.waited,
        )

    async def flush() -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                await usage.flush()
            except StoreFailed as error:
                _log.error("could not store usage, retrying: %s", error)

    page = UsagePage(usage, core.gateway, core.access)
    try:
        yield Parts(
            api=UsageApi(usage, core.access).routes(),
            pages=(Page("GET", "/ui/usage", page.show), Page("GET", "/ui/usage.csv", page.csv)),
            navigation=(NavigationEntry(60, "usage", "/ui/usage"),),
            background=(flush,),
            finished=(count,),
        )
    finally:
        await usage.flush()


FEATURE = Feature(open=_open, folder=Path(__file__).parent, schema=SCHEMA)
