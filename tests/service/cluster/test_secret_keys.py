"""Secret keys of gateways that share a database: each must be able to read what another one stores."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hubgate.domain.errors import InUse, StoreFailed
from hubgate.domain.records import Connection, Gate
from hubgate.domain.secret import Secret
from hubgate.service.cluster.gates import Gates
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hubgate.settings import Settings

OLD, NEW = secrets.token_urlsafe(32), secrets.token_urlsafe(32)


@pytest.fixture
def kind() -> str:
    return "postgresql"


@asynccontextmanager
async def running(settings: Settings, name: str, *keys: str) -> AsyncIterator[SqlStore]:
    """A gateway that has reported."""
    store = await SqlStore.open(replace(settings, secret_keys=keys))
    await store.feed.report(Gate(id=secrets.token_hex(8), name=name))
    yield store
    await store.close()


async def leave(store: SqlStore, name: str) -> None:
    for gate in await store.feed.gates():
        if gate.name == name:
            await store.feed.leave(gate.id)


async def test_gateway_starts_only_with_keys_that_those_that_run_can_read(settings: Settings) -> None:
    async with running(settings, "gate-1", OLD):
        for keys, works in (((OLD,), True), ((OLD, NEW), True), ((NEW, OLD), False), ((NEW,), False)):
            store = await SqlStore.open(replace(settings, secret_keys=keys))
            if works:
                await Gates(store.feed).check_keys("gate-2")
            else:
                with pytest.raises(StoreFailed, match="gateway gate-1 of the same database"):
                    await Gates(store.feed).check_keys("gate-2")
                await Gates(store.feed).check_keys("gate-1")  # its own earlier run
            await store.close()


async def test_rotation_waits_for_every_gateway_and_keeps_the_tokens(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(settings, "gate-1", OLD))
        token = Secret("hf_aTokenThatNobodyHas1234")
        await first.connections.put(Connection(name="team", token=token, created_at=0.0))
        second = await stack.enter_async_context(running(settings, "gate-2", NEW, OLD))
        gates = Gates(second.feed)
        with pytest.raises(InUse, match=r"newest secret key.*: gate-1"):
            await gates.check_rotation()
        await leave(second, "gate-1")
        restarted = await stack.enter_async_context(running(settings, "gate-1", OLD, NEW))
        await gates.check_rotation()
        assert await second.rotate_secret() == 1
        for store in (restarted, second):
            (connection,) = await store.connections.all()
            assert connection.token == token
        with pytest.raises(StoreFailed, match="Every token is sealed under the newest key"):
            await second.rotate_secret()
