"""Endpoints are edited, cloned, stored untested and disabled; a model is called only if it may have changed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from stub_sources import dedicated, local, until

from hubgate.domain.calls import Embed
from hubgate.domain.chunking import ChunkFit, ChunkingSettings
from hubgate.domain.endpoint import Facts, Similarity, Source, Target
from hubgate.domain.errors import (
    EndpointChanged,
    EndpointDisabled,
    EndpointExists,
    EndpointNotFound,
    InvalidEndpoint,
    UpstreamUnreachable,
)
from hubgate.domain.secret import Secret
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipelines
from hubgate.service.registry.live_endpoints import DisabledModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stub_sources import StubSources

    from hubgate.store.store import SqlStore

CALL = Embed(texts=("a text",))
TOKEN, ANOTHER = Secret("hf_" + "one" * 8), Secret("hf_" + "two" * 8)


@pytest.fixture
async def gateway(store: SqlStore, sources: StubSources) -> AsyncIterator[Gateway]:
    opened = Gateway(store, sources, Pipelines(None, time.monotonic))
    yield opened
    await opened.close()


class TestEdit:
    @pytest.mark.parametrize(
        "given",
        [
            {"requests_per_minute": 5, "tokens_per_minute": 9, "max_concurrent_requests": 2, "burst": 3},
            {"cached": False, "similarity": Similarity.L2_NORM, "timeout": 3.0, "namespace": "team"},
            {"chunking": ChunkingSettings(strategy="none")},
            {"enabled": False},
        ],
        ids=lambda given: next(iter(given)),
    )
    async def test_edit_that_does_not_affect_the_model_is_applied_without_calling_it(
        self, gateway: Gateway, store: SqlStore, sources: StubSources, given: dict[str, object]
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(), TOKEN)
        changed = await gateway.registry.edit(replace(endpoint, **given))  # type: ignore[arg-type]
        assert (sources.detections, sources.call_count) == (1, 1)
        assert gateway.registry.find("e5") == changed == replace(endpoint, **given)  # type: ignore[arg-type]
        assert await store.endpoints() == [Target(changed, TOKEN)]

    @pytest.mark.parametrize(
        "given",
        [
            {"url": "http://127.0.0.1:2/"},
            {"prefixes": {}},
            {"max_input_tokens": 100},
            {"proxy": "http://127.0.0.1:3"},
        ],
        ids=lambda given: next(iter(given)),
    )
    async def test_edit_that_may_affect_the_model_calls_it(
        self, gateway: Gateway, sources: StubSources, given: dict[str, object]
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(), TOKEN)
        await gateway.registry.edit(replace(endpoint, **given))  # type: ignore[arg-type]
        assert sources.detections == 2

    async def test_settings_that_fail_validation_leave_the_old_ones_in_force(
        self, gateway: Gateway, store: SqlStore, sources: StubSources
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(), TOKEN)
        sources.absence = UpstreamUnreachable("Nothing listens.")
        with pytest.raises(UpstreamUnreachable):
            await gateway.registry.edit(replace(endpoint, url="http://127.0.0.1:2/"))
        assert (
            await store.endpoints()
            == [Target(gateway.registry.find("e5"), TOKEN)]
            == [Target(endpoint, TOKEN)]
        )

    async def test_token_is_kept_replaced_or_removed_by_an_edit(
        self, gateway: Gateway, store: SqlStore
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(), TOKEN)
        await gateway.registry.edit(replace(endpoint, burst=2))
        assert (await store.endpoints())[0].token == TOKEN
        await gateway.registry.edit(endpoint, ANOTHER, keep_token=False)
        assert (await store.endpoints())[0].token == ANOTHER
        await gateway.registry.edit(endpoint, None, keep_token=False)
        assert (await store.endpoints())[0].token is None
        assert gateway.registry.token_hint("e5") is None

    async def test_edit_without_changes_does_nothing(self, gateway: Gateway, sources: StubSources) -> None:
        endpoint = await gateway.registry.register(dedicated(), TOKEN)
        assert await gateway.registry.edit(endpoint) == endpoint
        assert len(sources.upstreams) == 1

    @pytest.mark.parametrize("verb", ["edit", "update", "accept"])
    async def test_change_that_waits_for_another_does_not_revert_it(
        self, gateway: Gateway, store: SqlStore, sources: StubSources, verb: str
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(), TOKEN)
        sources.hold()
        moving = asyncio.create_task(gateway.registry.edit(replace(endpoint, url="http://127.0.0.1:2/")))
        await sources.asked.wait()
        if verb == "accept":
            waiting = asyncio.create_task(gateway.registry.accept("e5"))
        else:
            waiting = asyncio.create_task(getattr(gateway.registry, verb)(replace(endpoint, cached=False)))
        await asyncio.sleep(0)
        sources.go_on.set()
        await moving
        there = await waiting
        assert (there.url, there.cached) == ("http://127.0.0.1:2/", verb == "accept")
        assert await store.endpoints() == [Target(there, TOKEN)]
        assert gateway.registry.find("e5") == there

    async def test_edited_local_model_stays_loaded_until_its_last_user_leaves(
        self, gateway: Gateway, sources: StubSources
    ) -> None:
        endpoint = await gateway.registry.register(local(), None)
        for limit in (5, 6):
            endpoint = await gateway.registry.edit(replace(endpoint, burst=limit))
        await gateway.inference.embed("minilm", CALL)
        assert [actor.closed for actor in sources.upstreams] == [0]
        await gateway.registry.remove("minilm")
        await until(lambda: sources.upstreams[0].closed == 1)

    async def test_warning_of_too_long_chunks_follows_the_settings(
        self, gateway: Gateway, sources: StubSources
    ) -> None:
        fit = ChunkFit(words=40)
        sources.facts = replace(sources.facts, max_input_tokens=90, chunk_fit=fit, warnings=("another",))
        endpoint = await gateway.registry.register(
            dedicated(chunking=ChunkingSettings(strategy="none")), None
        )
        words = ChunkingSettings(strategy="word", max_chunk_size=50, overlap=5)
        long = await gateway.registry.edit(replace(endpoint, chunking=words))
        other, warning = long.facts.warnings
        assert other == "another"
        assert warning.startswith("Chunks of 50 words can be longer than the 90 tokens")
        short = await gateway.registry.edit(replace(long, chunking=endpoint.chunking))
        assert short.facts.warnings == ("another",)
        assert sources.detections == 1

    async def test_changed_model_stays_rejected_after_other_edits(
        self, gateway: Gateway, sources: StubSources
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(), None)
        sources.vector, sources.facts = (0.8, -0.6), Facts(model="org/other")
        with pytest.raises(EndpointChanged):
            await gateway.registry.check("e5")
        await gateway.registry.edit(replace(endpoint, burst=2))
        await gateway.registry.clone("e5", "twin")
        for name in ("e5", "twin"):
            with pytest.raises(EndpointChanged):
                await gateway.inference.embed(name, CALL)

    async def test_editing_an_unknown_endpoint_raises_not_found(self, gateway: Gateway) -> None:
        with pytest.raises(EndpointNotFound):
            await gateway.registry.edit(dedicated())


class TestSwitchedOff:
    async def test_disabled_endpoint_rejects_calls_and_frees_its_model(
        self, gateway: Gateway, sources: StubSources
    ) -> None:
        endpoint = await gateway.registry.register(local(), None)
        await gateway.registry.edit(replace(endpoint, enabled=False))
        await until(lambda: sources.upstreams[0].closed == 1)
        with pytest.raises(EndpointDisabled):
            await gateway.inference.embed("minilm", CALL)
        await gateway.registry.edit(endpoint)
        await gateway.inference.embed("minilm", CALL)
        assert (sources.detections, len(sources.open_upstreams)) == (1, 1)

    async def test_disabled_model_rejects_every_call(self) -> None:
        with pytest.raises(EndpointDisabled):
            await DisabledModel("e5")(CALL)

    async def test_disabled_endpoint_is_not_opened_or_called_at_startup(
        self, gateway: Gateway, store: SqlStore, sources: StubSources
    ) -> None:
        for endpoint in (
            await gateway.registry.register(local(), None),
            await gateway.registry.register(dedicated(), None),
        ):
            await gateway.registry.edit(replace(endpoint, enabled=False))
        before = len(sources.upstreams)
        again = Gateway(store, sources, Pipelines(None, time.monotonic))
        await again.stored.load()
        await again.start()
        await again.startup.settled()
        assert [endpoint.enabled for endpoint in again.registry.endpoints()] == [False, False]
        assert len(sources.upstreams) == before
        assert again.startup.unready() == {}
        await again.close()

    async def test_edits_of_a_disabled_endpoint_are_validated_when_it_is_enabled(
        self, gateway: Gateway, sources: StubSources
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(), None)
        off = await gateway.registry.edit(replace(endpoint, enabled=False, url="http://127.0.0.1:2/"))
        assert (sources.detections, off.facts) == (1, Facts())
        on = await gateway.registry.edit(replace(off, enabled=True))
        assert (sources.detections, on.facts) == (2, endpoint.facts)

    async def test_endpoint_registered_disabled_is_validated_and_closed(
        self, gateway: Gateway, sources: StubSources
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(enabled=False), None)
        assert endpoint.facts.model == "org/model"
        assert sources.open_upstreams == []
        with pytest.raises(EndpointDisabled):
            await gateway.inference.embed("e5", CALL)


class TestKeep:
    async def test_untested_endpoint_is_stored_disabled_and_validated_when_enabled(
        self, gateway: Gateway, store: SqlStore, sources: StubSources
    ) -> None:
        kept = await gateway.registry.register_disabled(dedicated(), TOKEN)
        assert (kept.enabled, sources.detections, sources.upstreams) == (False, 0, [])
        assert await store.endpoints() == [Target(kept, TOKEN)]
        with pytest.raises(EndpointExists):
            await gateway.registry.register_disabled(dedicated(), None)
        sources.absence = UpstreamUnreachable("Nothing listens.")
        with pytest.raises(UpstreamUnreachable):
            await gateway.registry.edit(replace(kept, enabled=True))
        assert not gateway.registry.find("e5").enabled
        sources.absence = None
        on = await gateway.registry.edit(replace(kept, enabled=True))
        assert on.facts.model == "org/model"
        await gateway.inference.embed("e5", CALL)

    async def test_fallback_may_be_disabled_and_untested_but_must_exist(self, gateway: Gateway) -> None:
        await gateway.registry.register_disabled(dedicated("spare"), None)
        await gateway.registry.register_disabled(dedicated("e6", fallback="spare"), None)
        with pytest.raises(InvalidEndpoint, match=r"The fallback \[nowhere\] .* does not exist"):
            await gateway.registry.register_disabled(dedicated("e7", fallback="nowhere"), None)


class TestClone:
    async def test_clone_copies_settings_token_and_facts(
        self, gateway: Gateway, store: SqlStore, sources: StubSources
    ) -> None:
        endpoint = await gateway.registry.register(dedicated(burst=3), TOKEN)
        twin = await gateway.registry.clone("e5", "twin")
        assert twin == replace(endpoint, name="twin")
        assert sources.detections == 1
        assert await store.endpoints() == [Target(endpoint, TOKEN), Target(twin, TOKEN)]
        await gateway.inference.embed("twin", CALL)

    async def test_clone_rejects_a_taken_name_and_an_unknown_source(self, gateway: Gateway) -> None:
        await gateway.registry.register(dedicated(), None)
        with pytest.raises(EndpointExists):
            await gateway.registry.clone("e5", "e5")
        with pytest.raises(EndpointNotFound):
            await gateway.registry.clone("e6", "e7")
        with pytest.raises(InvalidEndpoint, match="Invalid inference_id"):
            await gateway.registry.clone("e5", "No Name")


async def test_cancelled_edit_is_applied_completely_or_not_at_all(
    gateway: Gateway, store: SqlStore, sources: StubSources
) -> None:
    endpoint = await gateway.registry.register(dedicated(), None)
    sources.hold()
    asking = asyncio.create_task(gateway.registry.edit(replace(endpoint, url="http://127.0.0.1:2/")))
    await sources.asked.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    sources.go_on.set()
    assert await store.endpoints() == [Target(endpoint)]
    assert len(sources.open_upstreams) == 1


async def test_fake_endpoint_is_edited_like_any_other(gateway: Gateway) -> None:
    endpoint = await gateway.registry.register(dedicated(source=Source.FAKE), None)
    assert (await gateway.registry.edit(replace(endpoint, burst=2))).burst == 2
