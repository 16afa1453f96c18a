"""Pausing, resuming, changing and deleting Inference Endpoints: prices are confirmed, users are told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lookalikes.endpoints.world import PRICE, REQUEST, DeploymentWorld

from hubgate.domain.errors import (
    Cause,
    InUse,
    InvalidRequest,
    NotConfirmed,
    NotFound,
)
from hubgate.features.deployments.fields import DeploymentEditForm
from hubgate.features.deployments.model import Stage


class TestVerbs:
    async def test_a_dry_run_changes_nothing(self, world: DeploymentWorld) -> None:
        await world.create()
        await world.follow(120)
        done = len(world.posted())
        deployer, named = world.deployer, ("hf", None, "e5")
        acts = [
            await deployer.pause(*named, dry_run=True),
            await deployer.resume(*named, dry_run=True),
            await deployer.scale_to_zero(*named, dry_run=True),
            await deployer.edit(*named, DeploymentEditForm(max_replicas=3), dry_run=True),
            await deployer.delete(*named, dry_run=True),
        ]
        assert len(world.posted()) == done
        assert [one.act.after for one in acts] == [0.0, PRICE, PRICE, pytest.approx(3 * PRICE), 0.0]
        assert {one.act.before for one in acts} == {PRICE}
        assert acts[3].act.body == {
            "compute": {"scaling": {"minReplica": 0, "maxReplica": 3, "scaleToZeroTimeout": 15}}
        }
        assert acts[4].act.used_by == ("e5",)

    async def test_what_costs_more_needs_its_price(self, world: DeploymentWorld) -> None:
        await world.create()
        edit = DeploymentEditForm(max_replicas=3)
        with pytest.raises(NotConfirmed, match=r"at most \$0\.201 an hour"):
            await world.deployer.edit("hf", None, "e5", edit)
        with pytest.raises(NotConfirmed, match=r"\$0\.1 was confirmed") as raised:
            await world.deployer.edit("hf", None, "e5", edit, confirm_price=0.1)
        assert raised.value.cause is Cause.PRICE_CHANGED
        done = await world.deployer.edit("hf", None, "e5", edit, confirm_price=0.21)
        assert done.listed is not None
        assert done.listed.at_most == pytest.approx(0.201)
        await world.deployer.edit("hf", None, "e5", DeploymentEditForm(max_replicas=1))  # cheaper
        await world.deployer.pause("hf", None, "e5")
        with pytest.raises(NotConfirmed):
            await world.deployer.resume("hf", None, "e5")
        await world.deployer.resume("hf", None, "e5", confirm_price=PRICE)
        entries = await world.audited()
        assert entries["deployment.pause"]["dollars_per_hour"] == [PRICE, 0.0]
        assert entries["deployment.resume"]["dollars_per_hour"] == [0.0, PRICE]
        assert entries["deployment.edit"]["compute.scaling.maxReplica"] == [None, 1]

    async def test_hardware_and_environment_are_changed_and_values_stay_out_of_the_audit_log(
        self, world: DeploymentWorld
    ) -> None:
        await world.create()
        edit = DeploymentEditForm(
            instance="intel-spr/x4", environment={"LOG": "a-value"}, arguments=("--x",), revision="r"
        )
        await world.deployer.edit("hf", None, "e5", edit, confirm_price=1.0)
        entry = (await world.audited())["deployment.edit"]
        assert entry["compute.instanceSize"] == [None, "x4"]
        assert entry["model.env"] == [None, ["LOG"]]
        with pytest.raises(InvalidRequest, match="offers no"):
            await world.deployer.edit("hf", None, "e5", DeploymentEditForm(instance="abacus/x1"))
        with pytest.raises(InvalidRequest, match="nothing to change"):
            await world.deployer.edit("hf", None, "e5", DeploymentEditForm())

    async def test_scaling_to_zero_costs_nothing_until_the_next_call(self, world: DeploymentWorld) -> None:
        await world.create()
        await world.follow(120)
        done = await world.deployer.scale_to_zero("hf", None, "e5")
        assert done.listed is not None
        assert (done.listed.now, done.listed.at_most) == (0.0, PRICE)

    async def test_deleting_wants_the_name_and_tells_who_uses_it(self, world: DeploymentWorld) -> None:
        await world.create()
        await world.follow(120)
        with pytest.raises(NotConfirmed, match="has to be typed"):
            await world.deployer.delete("hf", None, "e5", typed="e6")
        with pytest.raises(InUse, match="used by e5"):
            await world.deployer.delete("hf", None, "e5", typed="e5")
        assert "e5" in {name for _, name in world.site.hosted}
        await world.deployer.delete("hf", None, "e5", typed="e5", force=True)
        assert world.site.hosted == {}
        assert await world.rows.all() == []
        with pytest.raises(NotFound):
            await world.deployer.show("hf", None, "e5")

    async def test_the_list_has_prices_and_what_was_lost(self, world: DeploymentWorld) -> None:
        await world.create()
        plan = await world.deployer.plan(replace(REQUEST, name="gone"))
        world.site.cut("POST", after=False)
        await world.deployer.create(replace(REQUEST, name="gone"), plan.confirm)
        await world.follow(120)
        e5, gone = await world.deployer.list("hf", None)
        assert (e5.deployment.name, e5.now, e5.at_most, e5.used_by) == ("e5", PRICE, PRICE, ("e5",))
        assert gone.managed is not None
        assert (gone.deployment.name, gone.managed.stage, gone.now) == ("gone", Stage.UNKNOWN, 0.0)
        assert {one.name for one in await world.deployer.records()} == {"e5", "gone"}
        await world.deployer.delete("hf", None, "gone", typed="gone")
        assert [one.name for one in await world.deployer.records()] == ["e5"]
