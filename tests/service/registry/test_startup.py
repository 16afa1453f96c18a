"""How the gateway checks the models of its endpoints at startup, and when they change."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from stub_sources import StubSources, dedicated, local, until

from hubgate.domain.calls import Embed
from hubgate.domain.endpoint import Endpoint, Source, Target, Task
from hubgate.domain.errors import (
    Cause,
    EndpointChanged,
    EndpointDisabled,
    InvalidEndpoint,
    RuntimeFailed,
    UpstreamRefused,
    UpstreamUnreachable,
    UpstreamUnreadable,
)
from hubgate.domain.secret import Secret
from hubgate.service.gateway import Gateway
from hubgate.service.inference.pipeline import Pipelines
from hubgate.service.registry.startup import StartupTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from hubgate.settings import Settings
    from hubgate.store.store import SqlStore

CALL = Embed(texts=["one"])
READY = local("ready")


@pytest.fixture
async def run(store: SqlStore, sources: StubSources) -> AsyncIterator[Callable[[], Gateway]]:
    """Another run of the gateway over the same store; the one before is closed by the test, or at its end."""
    runs: list[Gateway] = []

    def begin() -> Gateway:
        runs.append(Gateway(store, sources, Pipelines(None, time.monotonic)))
        return runs[-1]

    yield begin
    for gateway in runs:
        await gateway.close()


class TestLoad:
    async def test_loaded_endpoints_serve_with_their_tokens_without_any_request(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        token = Secret("hf_token")
        registered = await run().registry.register(dedicated(), token)
        gateway = run()
        await gateway.stored.load()
        assert gateway.registry.endpoints() == [registered]
        assert sources.upstreams[-1].token == token
        assert sources.call_count == 1
        await gateway.inference.embed("e5", CALL)

    async def test_endpoint_with_an_undecryptable_token_serves_without_it_and_is_logged(
        self,
        run: Callable[[], Gateway],
        sources: StubSources,
        settings: Settings,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        await run().registry.register(dedicated(), Secret("hf_token"))
        with sqlite3.connect(settings.database) as other:
            other.execute("UPDATE endpoints SET token_key = 'of another gateway'")
        other.close()
        gateway = run()
        await gateway.stored.load()
        assert gateway.registry.find("e5").name == "e5"
        assert sources.upstreams[-1].token is None
        assert "endpoint e5 has no usable token" in caplog.text

    async def test_endpoint_that_cannot_be_opened_is_disabled_and_others_serve(
        self, run: Callable[[], Gateway], sources: StubSources, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = run()
        await first.registry.register(dedicated("bad"), None)
        await first.registry.register(dedicated("good"), None)
        sources.unopenable = {"bad": InvalidEndpoint("Its engine is not known any more.")}
        gateway = run()
        await gateway.stored.load()
        assert [(one.name, one.enabled) for one in gateway.registry.endpoints()] == [
            ("bad", False),
            ("good", True),
        ]
        assert "endpoint bad is disabled: Its engine is not known any more." in caplog.text
        with pytest.raises(EndpointDisabled):
            await gateway.inference.embed("bad", CALL)
        with pytest.raises(InvalidEndpoint, match="Its engine is not known any more"):
            await gateway.registry.edit(replace(gateway.registry.find("bad"), enabled=True))
        sources.unopenable = {}
        again = run()
        await again.stored.load()
        assert again.registry.find("bad").enabled
        await gateway.registry.remove("bad")
        await gateway.registry.register(dedicated("bad"), None)


async def restarted(run: Callable[[], Gateway]) -> Gateway:
    """A new process that finds a local model in the store."""
    await run().registry.register(local(), None)
    gateway = run()
    await gateway.stored.load()
    return gateway


async def restarted_while_loading(run: Callable[[], Gateway], sources: StubSources) -> Gateway:
    """The same, whose model is being loaded."""
    gateway = await restarted(run)
    sources.hold()
    await gateway.start()
    await sources.asked.wait()
    return gateway


class TestStart:
    async def test_local_model_is_not_ready_until_it_answers(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = await restarted(run)
        assert gateway.startup.unready() == {}
        sources.hold()
        await gateway.start()
        assert gateway.startup.unready() == {"minilm": "The model is loading."}
        sources.go_on.set()
        await gateway.startup.settled()
        assert gateway.startup.unready() == {}

    async def test_local_model_may_load_on_its_first_call(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = await restarted(run)
        sources.hold()
        await gateway.start(load_models=False)
        assert gateway.startup.unready() == {}
        assert not sources.asked.is_set()

    @pytest.mark.parametrize("how", ["check", "call", "call under new settings"])
    async def test_failed_local_model_is_unready_with_the_reason_until_it_answers(
        self, run: Callable[[], Gateway], sources: StubSources, how: str
    ) -> None:
        gateway = await restarted(run)
        sources.failure = RuntimeFailed("The weights are gone.", remedy="Get them again.")
        await gateway.start()
        await gateway.startup.settled()
        assert gateway.startup.unready() == {"minilm": "The weights are gone. Get them again."}
        sources.failure = None
        if how == "call under new settings":
            await gateway.registry.edit(replace(gateway.registry.find("minilm"), timeout=7))
            assert gateway.startup.unready() != {}
        await (
            gateway.registry.check("minilm") if how == "check" else gateway.inference.embed("minilm", CALL)
        )
        assert gateway.startup.unready() == {}

    async def test_removing_a_loading_model_cancels_its_load(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = await restarted_while_loading(run, sources)
        await gateway.registry.remove("minilm")
        assert gateway.startup.unready() == {}
        await until(lambda: sources.upstreams[-1].cancelled == 1)

    async def test_loading_model_continues_under_new_settings_and_is_unready_until_it_answers(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = await restarted_while_loading(run, sources)
        await gateway.registry.edit(replace(gateway.registry.find("minilm"), timeout=7))
        assert gateway.startup.unready() == {"minilm": "The model is loading."}
        sources.go_on.set()
        await gateway.startup.settled()
        assert gateway.startup.unready() == {}

    async def test_disabling_a_loading_model_cancels_its_load(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = await restarted_while_loading(run, sources)
        await gateway.registry.edit(replace(gateway.registry.find("minilm"), enabled=False))
        assert gateway.startup.unready() == {}
        await until(lambda: sources.upstreams[-1].cancelled == 1)

    async def test_ready_endpoint_is_registered_on_first_start_and_never_again_after_removal(
        self, run: Callable[[], Gateway]
    ) -> None:
        first = run()
        await first.start(READY)
        assert first.startup.unready() == {"ready": "The model is loading."}
        await first.startup.settled()
        assert first.startup.unready() == {}
        assert [endpoint.name for endpoint in first.registry.endpoints()] == ["ready"]
        await first.registry.remove("ready")
        again = run()
        await again.stored.load()
        await again.start(READY)
        await again.startup.settled()
        assert again.registry.endpoints() == []

    async def test_ready_endpoint_is_not_added_to_a_gateway_that_had_endpoints(
        self, run: Callable[[], Gateway]
    ) -> None:
        first = run()
        await first.registry.register(dedicated(), None)
        await first.start(READY)
        await first.registry.remove("e5")
        again = run()
        await again.start(READY)
        await again.startup.settled()
        assert again.registry.endpoints() == []

    async def test_failed_ready_endpoint_is_logged_and_retried_at_the_next_start(
        self, run: Callable[[], Gateway], sources: StubSources, caplog: pytest.LogCaptureFixture
    ) -> None:
        sources.absence = RuntimeFailed("The Hub cannot be reached.")
        first = run()
        await first.start(READY)
        await first.startup.settled()
        assert first.startup.unready() == {}
        assert "endpoint ready could not be registered: The Hub cannot be reached." in caplog.text
        sources.absence = None
        again = run()
        await again.start(READY)
        await again.startup.settled()
        assert again.registry.find("ready").name == "ready"

    async def test_running_dedicated_endpoint_is_checked_once_while_it_serves(
        self, run: Callable[[], Gateway], sources: StubSources, caplog: pytest.LogCaptureFixture
    ) -> None:
        await run().registry.register(dedicated(), None)
        sources.awake = True
        gateway = run()
        await gateway.stored.load()
        sources.hold()
        with caplog.at_level(logging.INFO):
            await gateway.start()
            await gateway.startup.settled()
            assert gateway.startup.unready() == {}
            await sources.asked.wait()
            sources.go_on.set()
            await gateway.inference.embed("e5", CALL)
            await until(lambda: "endpoint e5 still runs the registered model" in caplog.text)
        assert (sources.detections, len(sources.upstreams)) == (2, 3)
        await until(lambda: len(sources.open_upstreams) == 2)  # that of the run before, and this one's

    async def test_endpoint_running_another_model_is_rejected_soon_after_startup(
        self, run: Callable[[], Gateway], sources: StubSources, caplog: pytest.LogCaptureFixture
    ) -> None:
        await run().registry.register(dedicated(), None)
        sources.awake = True
        sources.facts, sources.vector = replace(sources.facts, revision="def"), NEARLY
        gateway = run()
        await gateway.stored.load()
        await gateway.start()
        await until(lambda: "endpoint e5 takes no calls: " in caplog.text)
        with pytest.raises(EndpointChanged):
            await gateway.inference.embed("e5", CALL)
        assert gateway.startup.unready() == {}

    @pytest.mark.parametrize(
        "absence",
        [
            UpstreamUnreachable("Nothing listens."),
            UpstreamRefused("It wakes.", status=503, cause=Cause.WAKING, retryable=True),
            UpstreamRefused("It is paused.", status=400, cause=Cause.PAUSED),
        ],
        ids=["unreachable", "waking", "paused"],
    )
    async def test_startup_check_that_fails_is_logged_and_not_retried(
        self,
        run: Callable[[], Gateway],
        sources: StubSources,
        caplog: pytest.LogCaptureFixture,
        absence: UpstreamRefused,
    ) -> None:
        await run().registry.register(dedicated(), None)
        gateway = run()
        await gateway.stored.load()
        sources.awake = True
        sources.absence = absence
        await gateway.start()
        await until(lambda: f"endpoint e5 could not be checked: {absence}" in caplog.text)
        assert sources.detections == 2
        assert gateway.startup.unready() == {}
        await gateway.inference.embed("e5", CALL)

    async def test_endpoint_that_may_sleep_is_not_checked_until_it_has_answered_a_call(
        self, run: Callable[[], Gateway], sources: StubSources, caplog: pytest.LogCaptureFixture
    ) -> None:
        await run().registry.register(dedicated(), None)
        sources.facts, sources.vector = replace(sources.facts, revision="def"), NEARLY
        gateway = run()
        await gateway.stored.load()
        await gateway.start()
        await gateway.startup.settled()
        for _ in range(20):
            await asyncio.sleep(0)
        sources.failure = UpstreamRefused("It wakes.", status=400, cause=Cause.WAKING)
        with pytest.raises(UpstreamRefused):
            await gateway.inference.embed("e5", CALL)
        assert sources.detections == 1
        sources.failure = None
        await gateway.inference.embed("e5", CALL)
        await until(lambda: "endpoint e5 takes no calls: " in caplog.text)
        assert sources.detections == 2
        with pytest.raises(EndpointChanged):
            await gateway.inference.embed("e5", CALL)

    async def test_edit_that_keeps_the_model_keeps_the_check_pending(
        self, run: Callable[[], Gateway], sources: StubSources, caplog: pytest.LogCaptureFixture
    ) -> None:
        await run().registry.register(dedicated(), None)
        gateway = run()
        await gateway.stored.load()
        await gateway.start()
        await gateway.registry.edit(replace(gateway.registry.find("e5"), requests_per_minute=60))
        with caplog.at_level(logging.INFO):
            await gateway.inference.embed("e5", CALL)
            await until(lambda: "endpoint e5 still runs the registered model" in caplog.text)
        await gateway.inference.embed("e5", CALL)
        assert sources.detections == 2

    async def test_edit_during_a_check_does_not_hide_its_result(
        self, run: Callable[[], Gateway], sources: StubSources, caplog: pytest.LogCaptureFixture
    ) -> None:
        await run().registry.register(dedicated(), None)
        sources.awake = True
        sources.facts, sources.vector = replace(sources.facts, revision="def"), NEARLY
        gateway = run()
        await gateway.stored.load()
        sources.hold()
        await gateway.start()
        await sources.asked.wait()
        await gateway.registry.edit(replace(gateway.registry.find("e5"), requests_per_minute=60))
        sources.go_on.set()
        await until(lambda: "endpoint e5 takes no calls: " in caplog.text)
        with pytest.raises(EndpointChanged):
            await gateway.inference.embed("e5", CALL)

    async def test_check_started_before_a_move_does_not_apply_to_the_new_server(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = run()
        await gateway.registry.register(dedicated(), None)
        sources.hold()
        looking = asyncio.create_task(gateway.registry.check("e5"))
        await sources.asked.wait()
        before, sources.go_on = sources.go_on, asyncio.Event()
        sources.go_on.set()
        await gateway.registry.edit(replace(gateway.registry.find("e5"), url="http://127.0.0.1:2/"))
        sources.vector = (0.8, 0.6)
        before.set()
        await looking
        await gateway.inference.embed("e5", CALL)

    async def test_revalidated_or_removed_endpoint_is_not_checked(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        await run().registry.register(dedicated(), None)
        await run().registry.register(dedicated("other"), None)
        gateway = run()
        await gateway.stored.load()
        await gateway.start()
        await gateway.registry.accept("e5")
        await gateway.registry.remove("other")
        await gateway.inference.embed("e5", CALL)
        for _ in range(20):
            await asyncio.sleep(0)
        assert sources.detections == 3

    async def test_closing_cancels_startup_tasks(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        first = run()
        await first.registry.register(dedicated(), None)
        sources.awake = True
        await first.registry.register(local(), None)
        gateway = run()
        await gateway.stored.load()
        sources.hold()
        await gateway.start()
        await until(lambda: sources.call_count == 4)
        await gateway.close()
        assert sum(actor.cancelled for actor in sources.upstreams) == 2


NEARLY = (0.61, 0.7924)
"""Cosine 0.9999 to the registered vector: as far as half precision, or a little more training, would move it."""
CHANGES: dict[str, tuple[dict[str, Any], tuple[float, ...] | None, str]] = {
    "model": ({"model": "org/other"}, NEARLY, "its model was org/model and is org/other"),
    "revision": ({"revision": "def"}, NEARLY, "its revision was abc and is def"),
    "dimensions": ({}, (0.6, 0.8, 0.0), "its dimensions was 2 and is 3"),
    "fingerprint": ({}, (0.8, 0.6), r"another vector for a known text \(cosine 0\.9600"),
}


class TestChange:
    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("expected", [None, 2], ids=["", "with expected dimensions"])
    async def test_check_reports_the_change_and_calls_are_rejected_until_accepted(
        self, run: Callable[[], Gateway], sources: StubSources, change: str, expected: int | None
    ) -> None:
        gateway = run()
        await gateway.registry.register(dedicated(dimensions=expected), None)
        facts, vector, told = CHANGES[change]
        sources.facts = replace(sources.facts, **facts)
        sources.vector = vector or sources.vector
        with pytest.raises(EndpointChanged, match=told):
            await gateway.registry.check("e5")
        asked = sources.call_count
        with pytest.raises(EndpointChanged, match=told) as refused:
            await gateway.inference.embed("e5", CALL)
        assert "hubgate accept e5" in refused.value.remedy
        assert refused.value.cause is Cause.MODEL_CHANGED
        assert sources.call_count == asked
        accepted = await gateway.registry.accept("e5")
        assert accepted.facts.dimensions == len(sources.vector)
        assert accepted.dimensions == (expected and len(sources.vector))
        await gateway.inference.embed("e5", CALL)
        assert await gateway.registry.check("e5") == accepted

    async def test_original_model_running_again_needs_no_acceptance(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = run()
        await gateway.registry.register(dedicated(), None)
        sources.vector = (0.8, 0.6)
        with pytest.raises(EndpointChanged):
            await gateway.registry.check("e5")
        sources.vector = (0.6, 0.8)
        await gateway.registry.check("e5")
        await gateway.inference.embed("e5", CALL)

    @pytest.mark.parametrize(
        "renamed", [{"revision": "def"}, {"model": "/repository"}], ids=["revision", "model"]
    )
    async def test_another_revision_or_name_with_the_same_vectors_is_the_same_model(
        self, run: Callable[[], Gateway], sources: StubSources, renamed: dict[str, str]
    ) -> None:
        gateway = run()
        await gateway.registry.register(dedicated(), None)
        sources.facts = replace(sources.facts, **renamed)  # type: ignore[arg-type]
        await gateway.registry.check("e5")
        await gateway.inference.embed("e5", CALL)

    async def test_vector_that_differs_by_rounding_is_the_same(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = run()
        await gateway.registry.register(dedicated(), None)
        sources.vector = (0.601, 0.799)
        await gateway.registry.check("e5")

    async def test_model_that_returns_only_zeros_is_a_changed_model(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = run()
        await gateway.registry.register(dedicated(), None)
        sources.vector = (0.0, 0.0)
        with pytest.raises(EndpointChanged, match=r"cosine 0\.0000"):
            await gateway.registry.check("e5")
        with pytest.raises(UpstreamUnreadable, match="a vector of zeros for a test text"):
            await gateway.registry.accept("e5")

    async def test_wrong_dimensions_in_a_call_reject_all_later_calls_once_the_known_text_has_them_too(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = run()
        await gateway.registry.register(dedicated(), None)
        sources.vector = (0.6, 0.8, 0.0)
        with pytest.raises(UpstreamUnreadable, match="3 dimensions; the endpoint was registered with 2") as e:
            await gateway.inference.embed("e5", CALL)
        assert e.value.cause is Cause.DIMENSIONS_CHANGED
        await until(lambda: gateway.registry.changed("e5") is not None)
        asked = sources.call_count
        raised = []
        for _ in range(3):
            with pytest.raises(EndpointChanged, match="its dimensions was 2 and is 3") as changed:
                await gateway.inference.embed("e5", CALL)
            assert changed.value.remedy.endswith("hubgate accept e5.")
            raised.append(changed.value)
        assert sources.call_count == asked
        # An error that is raised again grows by a traceback each time.
        assert len({id(error) for error in raised}) == 3

    async def test_check_after_wrong_dimensions_waits_for_the_rate_limit(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = run()
        await gateway.registry.register(dedicated(requests_per_minute=1), None)
        sources.vector = (0.6, 0.8, 0.0)
        detections = sources.detections
        with pytest.raises(UpstreamUnreadable):
            await gateway.inference.embed("e5", CALL)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (sources.detections, gateway.registry.changed("e5")) == (detections, None)

    async def test_wrong_dimensions_of_a_local_model_have_it_checked(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = run()
        await gateway.registry.register(local(), None)
        sources.vector = (0.6, 0.8, 0.0)
        with pytest.raises(UpstreamUnreadable):
            await gateway.inference.embed("minilm", CALL)
        await until(lambda: gateway.registry.changed("minilm") is not None)

    async def test_endpoint_is_checked_again_one_at_a_time_and_not_for_every_doubt(self) -> None:
        times, checks, go_on = [0.0], 0, asyncio.Event()

        async def check() -> None:
            nonlocal checks
            checks += 1
            await go_on.wait()

        tasks = StartupTasks(clock=lambda: times[-1])
        for now in (0.0, 10.0, 20.0):  # the first check still runs
            times.append(now)
            tasks.recheck("e5", check)
            await asyncio.sleep(0)
        assert checks == 1
        go_on.set()
        await until(lambda: not tasks.checks("e5"))
        for now, made in ((29.9, 1), (30.0, 2), (45.0, 2), (60.0, 3)):
            times.append(now)
            tasks.recheck("e5", check)
            await until(lambda: not tasks.checks("e5"))
            assert checks == made
        await tasks.close()

    async def test_unreachable_model_keeps_its_previous_state(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = run()
        await gateway.registry.register(dedicated(), None)
        sources.absence = UpstreamUnreachable("Nothing listens.")
        with pytest.raises(UpstreamUnreachable):
            await gateway.registry.check("e5")
        await gateway.inference.embed("e5", CALL)

    async def test_accepting_keeps_the_token(
        self, run: Callable[[], Gateway], sources: StubSources, store: SqlStore
    ) -> None:
        gateway = run()
        token = Secret("hf_token")
        await gateway.registry.register(dedicated(), token)
        sources.vector = (0.8, 0.6)
        accepted = await gateway.registry.accept("e5")
        assert await store.endpoints() == [Target(accepted, token)]

    async def test_accepted_fake_endpoint_keeps_its_dimensions(
        self, run: Callable[[], Gateway], sources: StubSources
    ) -> None:
        gateway = run()
        fake = Endpoint(name="fake", task=Task.TEXT_EMBEDDING, source=Source.FAKE, dimensions=2)
        await gateway.registry.register(fake, None)
        assert (await gateway.registry.accept("fake")).dimensions == 2


async def test_rotation_returns_the_number_of_sealed_tokens(run: Callable[[], Gateway]) -> None:
    gateway = run()
    await gateway.registry.register(dedicated(), Secret("hf_token"))
    await gateway.registry.register(dedicated("other"), None)
    assert await gateway.rotate_secret() == 1
    assert await asyncio.gather(gateway.registry.check("e5"), gateway.registry.check("other"))
