"""Deployments as rows, on both databases: a plan is carried out once, and one gateway at a time follows them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from running_gateway import copy_migrated
from sqlalchemy import update

from hubgate.domain.endpoint import Engine, Task
from hubgate.domain.errors import InUse
from hubgate.features.deployments.model import ManagedDeployment, Price, Stage
from hubgate.features.deployments.store import SqlDeployments, deployments
from hubgate.store.store import SqlStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hubgate.settings import Settings

ONE = ManagedDeployment(
    id="0123456789abcdef",
    namespace="acme",
    name="e5",
    connection="hf",
    repository="intfloat/e5-small-v2",
    hardware="aws-us-east-1-intel-spr-x2",
    price=Price(replica=0.067, at_least=0.0, at_most=0.134),
    started_at=1000.0,
    task=Task.TEXT_EMBEDDING,
    engine=Engine.TEI,
    register_as="e5",
    warnings=("Hugging Face ignored the field tags.",),
)


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[SqlStore]:
    copy_migrated(settings)
    store = await SqlStore.open(settings)
    yield store
    await store.close()


async def test_a_deployment_is_stored_changed_and_removed(store: SqlStore) -> None:
    rows = SqlDeployments(store.database)
    await rows.add(ONE)
    assert list(await rows.all()) == [ONE]
    with pytest.raises(InUse, match="carried out already"):
        await rows.add(ONE)
    running = replace(ONE, stage=Stage.RUNNING, url="https://e5.example")
    assert await rows.save(running)
    assert list(await rows.all()) == [running]
    await rows.remove(ONE.id)
    assert not await rows.save(running)  # it does not come back
    assert list(await rows.all()) == []


async def test_a_row_that_cannot_be_read_is_left_out(
    store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    await SqlDeployments(store.database).add(ONE)
    await store.database.do(lambda c: c.execute(update(deployments).values(settings="{}")))
    assert list(await SqlDeployments(store.database).all()) == []
    assert f"deployment {ONE.id} is left out" in caplog.text


@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
async def test_one_gateway_at_a_time_follows_deployments(store: SqlStore, settings: Settings) -> None:
    other = await SqlStore.open(settings)
    async with SqlDeployments(store.database).leading():
        with pytest.raises(InUse):
            async with SqlDeployments(other.database).leading():
                pass
        assert list(await SqlDeployments(store.database).all()) == []  # a connection is left for the work
    async with SqlDeployments(other.database).leading():
        pass
    await other.close()
