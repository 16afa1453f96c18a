"""Plans of Inference Endpoints: they only read, and nothing is created unless one is confirmed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from lookalikes.deployments import catalogue_item
from lookalikes.endpoints.world import E5, PRICE, REQUEST, DeploymentWorld
from lookalikes.hub_api import READ_TOKEN, TOKEN

from hubgate.domain.endpoint import Engine
from hubgate.domain.errors import (
    Cause,
    HubgateError,
    InUse,
    InvalidRequest,
    NotConfirmed,
    NotPermitted,
    UpstreamRefused,
)
from hubgate.domain.secret import Secret
from hubgate.features.deployments.fields import Access, Scaling
from hubgate.features.deployments.model import Misfit


class TestPlan:
    async def test_a_plan_sends_only_gets_and_names_body_price_and_fit(self, world: DeploymentWorld) -> None:
        plan = await world.deployer.plan(replace(REQUEST, max_replicas=2))
        assert {seen.method for seen in world.site.asked} == {"GET"}
        assert (plan.price.replica, plan.price.at_least, plan.price.at_most) == (PRICE, 0.0, 2 * PRICE)
        assert plan.price.per_day == pytest.approx(48 * PRICE)
        assert plan.price.per_month == pytest.approx(1460 * PRICE)
        assert plan.engine is Engine.TEI
        assert plan.needed_gb == pytest.approx(0.66, abs=0.01)
        assert plan.body == {
            "name": "e5",
            "type": "private",
            "provider": {"vendor": "aws", "region": "us-east-1"},
            "compute": {
                "accelerator": "cpu",
                "instanceType": "intel-spr",
                "instanceSize": "x2",
                "scaling": {"minReplica": 0, "maxReplica": 2, "scaleToZeroTimeout": 15},
            },
            "model": {
                "repository": E5,
                "framework": "pytorch",
                "revision": None,
                "task": "sentence-embeddings",
                "image": {
                    "tei": {
                        "url": "ghcr.io/huggingface/text-embeddings-inference:cpu-1.9",
                        "port": 80,
                        "healthRoute": "/health",
                    }
                },
            },
            "tags": ["hubgate", f"hubgate-{plan.id}"],
        }

    async def test_the_cheapest_hardware_that_fits_is_chosen_and_the_rest_has_reasons(
        self, world: DeploymentWorld
    ) -> None:
        plan = await world.deployer.plan(replace(REQUEST, instance=None, region=None))
        fitting = [fit.hardware for fit in plan.fits if fit.misfit is None]
        assert plan.wanted.hardware == fitting[0]
        assert plan.wanted.hardware.price_per_hour == min(one.price_per_hour for one in fitting)
        misfits = {fit.hardware.instance: fit for fit in plan.fits if fit.misfit}
        assert misfits["inf2/x1"].misfit is Misfit.NO_IMAGE
        assert misfits["intel-icl/x1"].misfit is Misfit.NOT_AVAILABLE
        assert all(fit.reason for fit in misfits.values())

    async def test_a_tested_recipe_decides_the_engine(self, world: DeploymentWorld) -> None:
        recipe = {"publicId": "r1", "accelerator": "gpu", "engineType": "vllm", "revision": "abc"}
        world.site.catalogue = [catalogue_item(E5, "sentence-embeddings", **recipe)]
        plan = await world.deployer.plan(replace(REQUEST, instance="nvidia-l4/x1"))
        assert plan.engine is Engine.VLLM
        assert "r1" in plan.why
        assert plan.body["model"]["revision"] == "abc"

    async def test_a_catalogue_that_fails_is_only_a_warning(self, world: DeploymentWorld) -> None:
        world.site.fail("failing", only="/catalog/")
        assert "Inference Catalog" in (await world.deployer.plan(REQUEST)).warnings[0]

    async def test_named_hardware_wins_over_the_estimate_of_memory(self, world: DeploymentWorld) -> None:
        llama = replace(REQUEST, model="meta/llama", name=None, engine=Engine.VLLM)
        plan = await world.deployer.plan(replace(llama, instance="nvidia-t4/x1"))
        assert plan.wanted.name == "llama"
        assert any("may not fit on nvidia-t4/x1" in warning for warning in plan.warnings)
        assert any("gated" in warning for warning in plan.warnings)

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"instance": "abacus/x1"}, "offers no hardware \\[abacus/x1"),
            ({"instance": "inf2/x1"}, "fits on none of this hardware. inf2/x1: hubgate knows no image"),
            ({"instance": "intel-spr/x2", "max_replicas": 31}, "quota allows 30 more"),
            ({"name": "Not A Name"}, "cannot be the name"),
            ({"register_as": "Not A Name"}, "Invalid inference_id"),
            ({"engine": Engine.INFINITY}, "cannot deploy the engine infinity"),
            ({"model": "org/tagless"}, "task of \\[org/tagless\\] is unknown"),
            ({"model": "no/model"}, "has no model"),
            ({"connection": "nobody"}, "No connection is named"),
        ],
    )
    async def test_what_cannot_be_created_is_refused_with_a_reason(
        self, world: DeploymentWorld, changes: dict[str, Any], problem: str
    ) -> None:
        with pytest.raises(HubgateError, match=problem):
            await world.deployer.plan(replace(REQUEST, **changes))

    @pytest.mark.parametrize(
        ("low", "high", "zero_after"), [(2, 1, 15), (-1, 1, 15), (0, 0, 15), (0, 1, None), (0, 1, 0)]
    )
    def test_impossible_scaling_is_refused(self, low: int, high: int, zero_after: int | None) -> None:
        with pytest.raises(InvalidRequest):
            Scaling(min_replicas=low, max_replicas=high, zero_after=zero_after)

    async def test_a_token_without_the_right_is_told_before_anything_is_asked(
        self, world: DeploymentWorld
    ) -> None:
        await world.gateway.connections.replace("hf", Secret(TOKEN))
        with pytest.raises(NotPermitted, match=r"inference\.endpoints\.write") as raised:
            await world.deployer.plan(REQUEST)
        assert raised.value.cause is Cause.TOKEN_LACKS_SCOPE
        assert world.site.asked == []
        await world.gateway.connections.replace("hf", Secret(READ_TOKEN))
        with pytest.raises(UpstreamRefused):  # unknown: Hugging Face decides
            await world.deployer.plan(REQUEST)

    async def test_the_connection_must_be_named_if_there_are_several(self, world: DeploymentWorld) -> None:
        await world.gateway.connections.add("other", Secret(TOKEN))
        with pytest.raises(InvalidRequest, match="Several connections"):
            await world.deployer.plan(REQUEST)
        await world.deployer.plan(replace(REQUEST, connection="hf"))

    async def test_an_image_of_ones_own_keeps_its_password_out_of_the_plan(
        self, world: DeploymentWorld
    ) -> None:
        mine = replace(
            REQUEST,
            image="registry.example/tei:3",
            registry_username="me",
            registry_password="registry-password",
            secrets={"KEY": "a-secret-value"},
            type=Access.AUTHENTICATED,
        )
        plan = await world.deployer.plan(mine)
        custom = plan.body["model"]["image"]["custom"]
        assert custom["credentials"] == {"username": "me", "password": "***"}
        assert (plan.body["model"]["framework"], plan.body["type"]) == ("custom", "authenticated")
        assert "a-secret-value" not in f"{plan} {mine}"
        assert "registry-password" not in f"{plan} {mine}"


class TestConfirmation:
    async def test_nothing_is_created_without_the_confirmation_of_this_plan(
        self, world: DeploymentWorld
    ) -> None:
        plan = await world.deployer.plan(REQUEST)
        forged = plan.confirm.replace(plan.confirm[-1], "0" if plan.confirm[-1] != "0" else "1")
        refused = [("", REQUEST), ("x", REQUEST), ("ü.ü", REQUEST), (forged, REQUEST)]
        refused += [
            (plan.confirm, replace(REQUEST, max_replicas=2)),
            (plan.confirm, replace(REQUEST, name="other")),
            (plan.confirm, replace(REQUEST, register_as="other")),
        ]
        for confirm, request in refused:
            with pytest.raises(NotConfirmed):
                await world.deployer.create(request, confirm)
        world.advance(601)
        with pytest.raises(NotConfirmed, match="ten minutes"):
            await world.deployer.create(REQUEST, plan.confirm)
        assert world.posted() == []
        assert await world.rows.all() == []

    async def test_a_changed_price_stops_the_creation(self, world: DeploymentWorld) -> None:
        plan = await world.deployer.plan(REQUEST)
        world.site.change_price("aws", "intel-spr", "x2", 0.07)
        with pytest.raises(NotConfirmed, match=r"at most \$0\.067 an hour, and is \$0\.07 now") as raised:
            await world.deployer.create(REQUEST, plan.confirm)
        assert raised.value.cause is Cause.PRICE_CHANGED
        assert world.posted() == []

    async def test_the_hardware_of_the_plan_is_kept_even_if_other_is_cheaper_now(
        self, world: DeploymentWorld
    ) -> None:
        cheapest = replace(REQUEST, instance=None)
        plan = await world.deployer.plan(cheapest)
        assert plan.wanted.hardware.instance == "intel-spr/x1"
        world.site.change_price("aws", "intel-spr", "x2", 0.001)
        await world.deployer.create(cheapest, plan.confirm)
        assert world.site.one("e5").body["compute"]["instanceSize"] == "x1"

    async def test_a_plan_is_carried_out_once(self, world: DeploymentWorld) -> None:
        plan = await world.deployer.plan(REQUEST)
        await world.deployer.create(REQUEST, plan.confirm)
        with pytest.raises(InUse, match="carried out already"):
            await world.deployer.create(REQUEST, plan.confirm)
        assert world.posted() == ["POST /v2/endpoint/acme"]
