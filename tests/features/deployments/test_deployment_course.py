"""From a request to create to a registered endpoint: once, through lost replies and crashes, or with what it costs."""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from laws import examples
from lookalikes import lookalike
from lookalikes.deployments import DeploymentsApi
from lookalikes.endpoints.bodies import IMAGES
from lookalikes.endpoints.world import E5, PRICE, REQUEST, DeploymentWorld, open_deployment_world
from lookalikes.hub_api import HubApi

from hubgate.domain.endpoint import Endpoint, Engine, Source, Task
from hubgate.domain.errors import (
    Cause,
    EndpointExists,
    StoreFailed,
    UpstreamRefused,
)
from hubgate.features.deployments.model import Stage

if TYPE_CHECKING:
    from hubgate.features.deployments.model import ManagedDeployment
    from hubgate.settings import Settings


class TestRegistration:
    async def test_it_is_registered_with_the_connections_token_when_it_runs(
        self, world: DeploymentWorld
    ) -> None:
        created = await world.create()
        assert (created.stage, created.warnings) == (Stage.CREATED, ())
        records = [await world.follow(5) for _ in range(25)]
        stages = dict.fromkeys(record.stage for record in records if record)
        assert list(stages) == [Stage.INITIALIZING, Stage.REGISTERED]
        endpoint = world.gateway.registry.find("e5")
        assert (endpoint.connection, endpoint.namespace, endpoint.task) == ("hf", "acme", Task.TEXT_EMBEDDING)
        assert (endpoint.facts.engine, endpoint.facts.model) == (Engine.TEI, E5)
        verbs = await world.audited()
        assert verbs["deployment.create"]["dollars_per_hour"] == [0.0, PRICE]
        assert verbs["deployment.register"] == {"endpoint": [None, "e5"]}

    async def test_fields_that_hugging_face_ignores_are_told(self, world: DeploymentWorld) -> None:
        options = {"pooling": "splade"}
        assert (await world.create(model="org/splade", name="splade")).warnings == ()
        sparse = world.site.one("splade").body["model"]["image"]["tei"]
        assert sparse.items() >= options.items()
        known = IMAGES["tei"]
        IMAGES["tei"] = known - options.keys()
        try:
            ignored = await world.create(model="org/splade", name="splade-2")
        finally:
            IMAGES["tei"] = known
        assert ignored.warnings == ("Hugging Face ignored the field model.image.tei.pooling.",)

    async def test_a_refusal_creates_nothing_and_leaves_no_record(self, world: DeploymentWorld) -> None:
        await world.create()
        with pytest.raises(UpstreamRefused, match="conflicts") as raised:
            await world.create(register_as="second")
        assert raised.value.cause is Cause.CONFLICT
        assert [one.register_as for one in await world.rows.all()] == ["e5"]

    async def test_a_taken_name_of_an_endpoint_is_told_before_it_costs(self, world: DeploymentWorld) -> None:
        taken = Endpoint(name="e5", task=Task.TEXT_EMBEDDING, source=Source.FAKE)
        await world.gateway.registry.register(taken, None)
        assert "already exists" in (await world.deployer.plan(REQUEST)).warnings[-1]
        with pytest.raises(EndpointExists):
            await world.create()
        assert world.posted() == []

    async def test_after_30_minutes_it_says_what_it_costs(
        self, world: DeploymentWorld, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.site.ends_in["e5"] = "initializing"
        await world.create()
        record = await world.follow(1790, step=30)
        assert record is not None
        assert record.stage is Stage.INITIALIZING
        record = await world.follow(60, step=30)
        assert record is not None
        assert record.stage is Stage.FAILED
        assert "not ready after 30 minutes" in record.message
        assert "costs $0.067 an hour" in record.message
        assert "hubgate deploy pause e5" in record.message
        assert "deployment e5" in caplog.text
        asked = len(world.site.asked)
        await world.follow(600)
        assert len(world.site.asked) == asked  # it is not followed any more
        assert world.posted() == ["POST /v2/endpoint/acme"]

    async def test_it_is_deleted_on_failure_if_so_wanted(self, world: DeploymentWorld) -> None:
        world.site.ends_in["e5"] = "failed"
        await world.create(delete_on_failure=True)
        record = await world.follow(200)
        assert record is not None
        assert (record.stage, record.message.endswith("It was deleted.")) == (Stage.FAILED, True)
        assert world.site.hosted == {}

    @pytest.mark.parametrize(
        ("state", "words"), [("failed", "could not start"), ("paused", "paused before it was registered")]
    )
    async def test_what_costs_nothing_is_told_as_such(
        self, world: DeploymentWorld, state: str, words: str
    ) -> None:
        world.site.ends_in["e5"] = state
        await world.create()
        record = await world.follow(200)
        assert record is not None
        assert record.stage is Stage.FAILED
        assert words in record.message
        assert "costs nothing" in record.message

    async def test_one_that_was_deleted_elsewhere_is_not_waited_for(self, world: DeploymentWorld) -> None:
        await world.create()
        world.site.hosted.clear()
        record = await world.follow(5)
        assert record is not None
        assert (record.stage, record.message) == (Stage.FAILED, "It was deleted.")

    async def test_a_model_that_cannot_be_registered_is_left_with_its_costs(
        self, world: DeploymentWorld
    ) -> None:
        with lookalike("tei", name=E5, kind="reranker") as wrong:
            world.site.servers[E5] = wrong.url
            await world.create()
            record = await world.follow(200)
        assert record is not None
        assert record.stage is Stage.FAILED
        assert "could not be registered" in record.message
        assert "costs $0.067 an hour" in record.message

    async def test_a_server_that_does_not_answer_yet_is_asked_again(self, world: DeploymentWorld) -> None:
        url = world.site.servers[E5]
        world.site.servers[E5] = "http://127.0.0.1:9"
        await world.create()
        record = await world.follow(150)
        assert record is not None
        assert (record.stage, "does not answer yet" in record.message) == (Stage.RUNNING, True)
        world.site.servers[E5] = url
        record = await world.follow(5)
        assert record is not None
        assert (record.stage, record.message) == (Stage.REGISTERED, "")

    async def test_a_new_url_after_a_resume_reaches_the_endpoint(self, world: DeploymentWorld) -> None:
        world.site.new_url_after_resume = True
        await world.create()
        await world.follow(120)
        before = world.gateway.registry.find("e5").url
        await world.deployer.pause("hf", None, "e5")
        await world.deployer.resume("hf", None, "e5", confirm_price=PRICE)
        record = await world.follow(120)
        assert record is not None
        assert record.stage is Stage.REGISTERED
        assert world.gateway.registry.find("e5").url == record.url != before


class TestLostReply:
    @pytest.mark.law
    async def test_a_lost_reply_never_makes_two(
        self, world: DeploymentWorld, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.CRITICAL)
        chance = random.Random(14)
        found = lost = 0
        for run in range(examples(20)):
            name = f"e{run}"
            world.site.asked.clear()
            after, asking = chance.random() < 0.5, chance.randrange(3)
            plan = await world.deployer.plan(replace(REQUEST, name=name))
            world.site.cut("POST", after=after)
            record: ManagedDeployment | None = await world.deployer.create(
                replace(REQUEST, name=name), plan.confirm
            )
            assert record is not None
            assert (record.stage, "unknown" in record.message) == (Stage.PLANNED, True)
            if asking:  # the first questions are lost, too
                world.site.cut("GET", after=False, times=asking)
            record = await world.follow(60, step=15)
            assert record is not None
            assert world.posted() == ["POST /v2/endpoint/acme"]
            existing = [one for _, one in world.site.hosted if one == name]
            if after:
                found += 1
                assert existing == [name]
                assert record.stage is Stage.INITIALIZING
            else:
                lost += 1
                assert existing == []
                assert record.stage is Stage.UNKNOWN
                assert f"hubgate-{plan.id}" in record.message
            world.site.hosted.clear()
            await world.rows.remove(record.id)
        assert min(found, lost) >= 5, "both happen, with this seed"

    @pytest.mark.parametrize("fault", ["failing", "gateway", "not-json"])
    async def test_a_reply_that_says_nothing_is_a_lost_one(self, world: DeploymentWorld, fault: str) -> None:
        plan = await world.deployer.plan(REQUEST)
        world.site.fail(fault, method="POST")
        assert (await world.deployer.create(REQUEST, plan.confirm)).stage is Stage.PLANNED

    @pytest.mark.parametrize("fault", ["wrong-token", "no-right", "no-payment", "limited"])
    async def test_a_clear_refusal_is_not(self, world: DeploymentWorld, fault: str) -> None:
        plan = await world.deployer.plan(REQUEST)
        world.site.fail(fault, method="POST")
        with pytest.raises(UpstreamRefused):
            await world.deployer.create(REQUEST, plan.confirm)
        assert await world.rows.all() == []

    async def test_one_of_the_same_name_without_the_tag_is_not_ours(self, world: DeploymentWorld) -> None:
        plan = await world.deployer.plan(REQUEST)
        world.site.cut("POST", after=False)
        await world.deployer.create(REQUEST, plan.confirm)
        await world.create(name="other")
        world.site.hosted["acme", "e5"] = world.site.hosted.pop(("acme", "other"))
        world.site.hosted["acme", "e5"].body["tags"] = ["somebody"]
        await world.follow(60)
        records = {one.name: one.stage for one in await world.deployer.records()}
        assert records == {"e5": Stage.UNKNOWN, "other": Stage.FAILED}
        listed = await world.deployer.show("hf", None, "e5")
        assert listed.managed is None

    async def test_one_that_appears_late_is_found(self, world: DeploymentWorld) -> None:
        plan = await world.deployer.plan(REQUEST)
        world.site.cut("POST", after=True)
        await world.deployer.create(REQUEST, plan.confirm)
        hidden = world.site.hosted.pop(("acme", "e5"))
        record = await world.follow(60)
        assert record is not None
        assert record.stage is Stage.UNKNOWN
        world.site.hosted["acme", "e5"] = hidden
        record = await world.follow(90)
        assert record is not None
        assert record.stage is Stage.REGISTERED


class _Crash(BaseException):
    """The process ends here."""


class _CrashingStore:
    """Ends the process at its write number `at`: before it, or after it if `done`."""

    def __init__(self, store: Any, at: int, *, done: bool) -> None:
        self._store = store
        self._left = at
        self._done = done

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in {"add", "save", "remove"}:
            return method

        async def writing(*arguments: Any) -> Any:
            self._left -= 1
            if not self._left and not self._done:
                raise _Crash
            result = await method(*arguments)
            if not self._left:
                raise _Crash
            return result

        return writing


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 6))
async def test_a_crash_at_any_write_leaves_one_endpoint_that_is_registered_or_told(
    settings: Settings, deployment_site: DeploymentsApi, hub_site: HubApi, at: int, done: bool
) -> None:
    def wrap(store: Any) -> Any:
        return _CrashingStore(store, at, done=done)

    async with open_deployment_world(settings, deployment_site, hub_site.url, wrap=wrap) as world:
        try:
            await world.create()
            await world.follow(150)
        except _Crash:
            pass
    async with open_deployment_world(settings, deployment_site, hub_site.url, former=world) as restarted:
        record = await restarted.follow(300)
        created = [one for one in restarted.posted() if one == "POST /v2/endpoint/acme"]
        if not created:  # it crashed before the request: nothing costs, and it is told if it was recorded
            assert deployment_site.hosted == {}
            assert record is None or record.stage is Stage.UNKNOWN
            return
        assert len(created) == 1
        assert record is not None
        assert record.stage is Stage.REGISTERED
        assert [one.name for one in restarted.gateway.registry.endpoints()] == ["e5"]


async def test_secrets_are_in_no_record_audit_entry_or_log_line(
    world: DeploymentWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await world.create(
        image="registry.example/tei:3",
        registry_username="me",
        registry_password="registry-password",
        secrets={"KEY": "a-secret-value"},
    )
    await world.follow(120)
    sent = next(seen.json for seen in world.site.asked if seen.method == "POST")
    assert sent["model"]["secrets"] == {"KEY": "a-secret-value"}
    written = f"{await world.store.audit.read(100)}{await world.rows.all()}{caplog.text}"
    written += str(await world.deployer.list("hf", None))
    for secret in ("registry-password", "a-secret-value", "hf_mayManageEndpoints"):
        assert secret not in written


async def test_the_store_being_away_does_not_end_the_following(
    world: DeploymentWorld, caplog: pytest.LogCaptureFixture
) -> None:
    class Away:
        async def all(self) -> Any:
            world.follower.wake()
            raise (StoreFailed("away") if len(caplog.records) < 2 else _Crash)

    world.follower._store = Away()  # type: ignore[assignment]
    with pytest.raises(_Crash):
        await world.follower.run()
    assert "cannot be followed, retrying: away" in caplog.text
