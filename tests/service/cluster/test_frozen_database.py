"""A PostgreSQL that does not answer."""

from __future__ import annotations

import asyncio
import gc
import secrets
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from postgres.server import PostgresServer, short_folder

from hubgate.domain.errors import StoreFailed
from hubgate.service.cluster.gates import Gates
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hubgate.settings import Settings


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    folder = short_folder()
    server = PostgresServer(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


async def test_failures_that_nobody_waits_for_are_not_logged(
    settings: Settings, server: PostgresServer
) -> None:
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    keys = (secrets.token_urlsafe(32),)
    store = await SqlStore.open(replace(settings, database_url=server.url, secret_keys=keys))
    gates = Gates(store.feed)
    assert await gates.behind(0) == []
    server.freeze()
    assert await gates.behind(1) == ["unknown"]
    asking = asyncio.ensure_future(store.keys())
    await asyncio.sleep(0)
    asking.cancel()
    server.kill()  # what was asked fails
    with pytest.raises(StoreFailed):
        await store.keys()  # after the others: one thread asks
    del gates
    gc.collect()
    await store.close()
    assert logged == []
