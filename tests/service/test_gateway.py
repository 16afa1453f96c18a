"""The operations of the gateway, over a real store and stub sources."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from stub_sources import StubSources, dedicated, local, until

from hubgate.domain.calls import Embed, Vectors
from hubgate.domain.endpoint import Target, Task
from hubgate.domain.errors import (
    DeadlineExceeded,
    EndpointExists,
    EndpointNotFound,
    InvalidEndpoint,
    QueueFull,
    StoreFailed,
    UpstreamUnreachable,
    UpstreamUnreadable,
    WrongTask,
)
from hubgate.domain.secret import Secret
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipelines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hubgate.settings import Settings
    from hubgate.store.store import SqlStore

CALL = Embed(texts=["one"])
TOKEN = Secret("hf_first_token_of_all")


@pytest.fixture
async def gateway(store: SqlStore, sources: StubSources) -> AsyncIterator[Gateway]:
    opened = Gateway(store, sources, Pipelines(None, time.monotonic))
    yield opened
    await opened.close()


async def stored(store: SqlStore) -> list[str]:
    return [target.endpoint.name for target in await store.endpoints()]


class TestRegister:
    async def test_detected_facts_are_stored_with_the_token(
        self, gateway: Gateway, store: SqlStore, sources: StubSources
    ) -> None:
        registered = await gateway.registry.register(dedicated(), TOKEN)
        assert registered.facts.dimensions == 2
        assert registered.facts.fingerprint is not None
        assert await store.endpoints() == [Target(registered, TOKEN)]
        assert gateway.registry.find("e5") == registered
        assert gateway.registry.token_hint("e5") == "…_all"
        assert (sources.detections, sources.call_count) == (1, 1)

    async def test_rejects_a_taken_endpoint_name_before_calling_the_model(
        self, gateway: Gateway, sources: StubSources
    ) -> None:
        await gateway.registry.register(dedicated(), None)
        with pytest.raises(EndpointExists):
            await gateway.registry.register(dedicated(), None)
        assert sources.detections == 1

    async def test_nothing_is_stored_when_detection_fails(
        self, gateway: Gateway, store: SqlStore, sources: StubSources
    ) -> None:
        sources.absence = UpstreamUnreachable("Nothing listens.")
        with pytest.raises(UpstreamUnreachable):
            await gateway.registry.register(dedicated(), None)
        assert await stored(store) == []
        assert sources.upstreams == []

    @pytest.mark.parametrize(
        ("vector", "error"),
        [
            ((float("nan"), 1.0), UpstreamUnreadable),
            ((0.0, -0.0), UpstreamUnreadable),
            ((0.6, 0.8, 0.0), InvalidEndpoint),
        ],
        ids=["no number", "only zeros", "other dimensions than expected"],
    )
    async def test_invalid_answer_stores_nothing_and_closes_the_upstream(
        self,
        gateway: Gateway,
        store: SqlStore,
        sources: StubSources,
        vector: tuple[float, ...],
        error: type[Exception],
    ) -> None:
        sources.vector = vector
        with pytest.raises(error):
            await gateway.registry.register(dedicated(dimensions=2), None)
        assert await stored(store) == []
        assert gateway.registry.endpoints() == []
        assert sources.open_upstreams == []

    async def test_validation_timeout_is_reported_with_its_seconds(
        self, gateway: Gateway, sources: StubSources
    ) -> None:
        sources.hold()
        with pytest.raises(DeadlineExceeded, match=r"within 0\.01 seconds"):
            await gateway.registry.register(dedicated(), None, within=0.01)
        assert sources.open_upstreams == []

    async def test_store_failure_serves_nothing_and_closes_the_upstream(
        self, gateway: Gateway, sources: StubSources, settings: Settings
    ) -> None:
        with sqlite3.connect(settings.database) as other:
            other.execute("DROP TABLE endpoints")
        other.close()
        with pytest.raises(StoreFailed):
            await gateway.registry.register(dedicated(), None)
        assert gateway.registry.endpoints() == []
        assert sources.open_upstreams == []

    async def test_concurrent_registrations_of_one_name_succeed_once_and_validate_once(
        self, gateway: Gateway, store: SqlStore, sources: StubSources
    ) -> None:
        one, other = await asyncio.gather(
            gateway.registry.register(dedicated(), None),
            gateway.registry.register(dedicated(), None),
            return_exceptions=True,
        )
        assert one == gateway.registry.find("e5")
        assert isinstance(other, EndpointExists)
        assert await stored(store) == ["e5"]
        assert (sources.detections, len(sources.open_upstreams)) == (1, 1)

    async def test_cancelling_during_validation_leaves_nothing_behind(
        self, gateway: Gateway, store: SqlStore, sources: StubSources
    ) -> None:
        sources.hold()
        registering = asyncio.create_task(gateway.registry.register(dedicated(), None))
        await sources.asked.wait()
        registering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await registering
        assert await stored(store) == []
        assert sources.open_upstreams == []

    async def test_cancelling_while_storing_leaves_the_endpoint_stored_and_served(
        self, gateway: Gateway, store: SqlStore, sources: StubSources, settings: Settings
    ) -> None:
        other = sqlite3.connect(settings.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # whoever wants to write now has to wait
        registering = asyncio.create_task(gateway.registry.register(dedicated(), None))
        await sources.asked.wait()
        next_one = asyncio.create_task(gateway.registry.register(dedicated(), None))
        for _ in range(20):  # the few turns of the loop from the answer to the store
            await asyncio.sleep(0)
        registering.cancel()
        other.execute("ROLLBACK")
        other.close()
        with pytest.raises(asyncio.CancelledError):
            await registering
        with pytest.raises(EndpointExists):
            await next_one
        assert await stored(store) == ["e5"]
        assert gateway.registry.find("e5").name == "e5"


class TestUpdate:
    async def test_update_to_an_equal_endpoint_sends_no_requests(
        self, gateway: Gateway, sources: StubSources
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(), TOKEN)
        assert await gateway.registry.update(endpoint) == endpoint
        assert await gateway.registry.update(endpoint, Secret(TOKEN.reveal())) == endpoint
        assert (sources.detections, sources.call_count) == (1, 1)

    async def test_token_is_kept_unless_a_new_one_is_given(
        self, gateway: Gateway, store: SqlStore, sources: StubSources
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(), TOKEN)
        changed = await gateway.registry.update(replace(endpoint, requests_per_minute=5))
        assert await store.endpoints() == [Target(changed, TOKEN)]
        another = Secret("hf_another_token")
        await gateway.registry.update(changed, another)
        assert await store.endpoints() == [Target(changed, another)]
        assert sources.upstreams[-1].token == another

    async def test_settings_that_fail_validation_leave_the_old_ones_in_force(
        self, gateway: Gateway, store: SqlStore, sources: StubSources
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(), TOKEN)
        sources.failure = UpstreamUnreachable("Gone.")
        with pytest.raises(UpstreamUnreachable):
            await gateway.registry.update(replace(endpoint, requests_per_minute=5))
        sources.failure = None
        assert gateway.registry.find("e5") == endpoint
        assert await store.endpoints() == [Target(endpoint, TOKEN)]
        await gateway.inference.embed("e5", CALL)
        assert sources.upstreams[0].calls[-1] == sources.upstreams[0].calls[1]

    async def test_running_and_queued_calls_finish_on_the_old_upstream_which_then_closes(
        self, gateway: Gateway, sources: StubSources
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(max_concurrent_requests=1, burst=9), None)
        old = sources.upstreams[0]
        sources.hold()
        calls = [asyncio.create_task(gateway.inference.embed("e5", CALL))]
        await sources.asked.wait()
        calls += [asyncio.create_task(gateway.inference.embed("e5", CALL)) for _ in range(2)]
        queue = gateway.pipelines()["e5"].queue
        assert queue is not None
        await until(lambda: queue.queued_calls == 2)
        updating = asyncio.create_task(gateway.registry.update(replace(endpoint, requests_per_minute=5)))
        await until(lambda: len(sources.upstreams) == 2)
        sources.go_on.set()
        await updating
        answers = await asyncio.gather(*calls)
        assert all(isinstance(answer, Vectors) for answer in answers)
        assert [len(call.texts) for call in old.calls[1:]] == [1, 2]
        await until(lambda: old.closed == 1)
        await gateway.inference.embed("e5", CALL)
        assert len(sources.upstreams[1].calls) == 2

    async def test_unknown_endpoint_is_not_found(self, gateway: Gateway) -> None:
        with pytest.raises(EndpointNotFound):
            await gateway.registry.update(dedicated())

    async def test_updating_an_endpoint_being_removed_raises_not_found(self, gateway: Gateway) -> None:
        endpoint = await gateway.registry.register(dedicated(), None)
        removing = asyncio.create_task(gateway.registry.remove("e5"))
        await asyncio.sleep(0)
        with pytest.raises(EndpointNotFound):
            await gateway.registry.update(replace(endpoint, requests_per_minute=5))
        await removing


class TestRemove:
    async def test_removal_finishes_calls_in_flight_and_rejects_later_ones(
        self, gateway: Gateway, store: SqlStore, sources: StubSources
    ) -> None:
        await gateway.registry.register(dedicated(), None)
        sources.hold()
        call = asyncio.create_task(gateway.inference.embed("e5", CALL))
        await sources.asked.wait()
        await gateway.registry.remove("e5")
        with pytest.raises(EndpointNotFound):
            await gateway.inference.embed("e5", CALL)
        assert await stored(store) == []
        assert sources.open_upstreams != []
        sources.go_on.set()
        assert isinstance(await call, Vectors)
        await until(lambda: not sources.open_upstreams)

    async def test_unknown_endpoint_is_not_found(self, gateway: Gateway) -> None:
        with pytest.raises(EndpointNotFound):
            await gateway.registry.remove("none")


class TestClose:
    async def test_closing_closes_everything_once_and_rejects_queued_calls(
        self, store: SqlStore, sources: StubSources
    ) -> None:
        gateway = Gateway(store, sources, Pipelines(None, time.monotonic))
        await gateway.registry.register(dedicated("kept", max_concurrent_requests=1), None)
        await gateway.registry.register(dedicated("removed"), None)
        sources.hold()
        flying = [asyncio.create_task(gateway.inference.embed(name, CALL)) for name in ("kept", "removed")]
        await until(lambda: sources.call_count == 4)
        waiting = asyncio.create_task(gateway.inference.embed("kept", CALL))
        await gateway.registry.remove("removed")
        closing = asyncio.create_task(gateway.close())
        with pytest.raises(QueueFull, match="is closing"):
            await waiting
        sources.go_on.set()
        await closing
        assert all(isinstance(answer, Vectors) for answer in await asyncio.gather(*flying))
        assert [actor.closed for actor in sources.upstreams] == [1, 1]
        assert sources.closed


async def test_call_for_another_task_is_rejected_with_both_tasks(gateway: Gateway, store: SqlStore) -> None:
    await store.add_endpoint(Target(dedicated("ranker", task=Task.RERANK)))
    await gateway.stored.load()
    with pytest.raises(WrongTask, match="serves rerank, not text_embedding"):
        await gateway.inference.embed("ranker", CALL)


async def test_endpoints_are_listed_by_name(gateway: Gateway) -> None:
    await gateway.registry.register(dedicated("b"), None)
    await gateway.registry.register(local("a"), TOKEN)
    assert [endpoint.name for endpoint in gateway.registry.endpoints()] == ["a", "b"]
    assert list(gateway.pipelines()) == ["a", "b"]
    assert gateway.registry.token_hint("b") is None
