"""Inference Endpoints in Hugging Face's JSON: hardware, recipes, and what the API stored of what was sent."""

from __future__ import annotations

from typing import Any

import pytest

from hubgate.domain.endpoint import Engine
from hubgate.domain.secret import Secret
from hubgate.features.deployments.fields import Scaling
from hubgate.features.deployments.hub import (
    MASK,
    create_body,
    edit_body,
    ignored_fields,
    read_hardware,
    read_recipes,
)
from hubgate.features.deployments.model import (
    DeploymentChanges,
    Hardware,
    HardwareStatus,
    Image,
    Recipe,
    WantedDeployment,
)

COMPUTE: dict[str, Any] = {
    "id": "aws-us-east-1-nvidia-l4-x1",
    "accelerator": "gpu",
    "instanceType": "nvidia-l4",
    "instanceSize": "x1",
    "architecture": "Nvidia L4",
    "numAccelerators": 1,
    "memoryGb": 30.0,
    "gpuMemoryGb": 24,
    "pricePerHour": 0.8,
    "status": "available",
    "quota": {"maxAccelerators": 4, "usedAccelerators": 3},
}
L4 = Hardware(
    id="aws-us-east-1-nvidia-l4-x1",
    vendor="aws",
    region="us-east-1",
    accelerator="gpu",
    instance_type="nvidia-l4",
    instance_size="x1",
    price_per_hour=0.8,
    architecture="Nvidia L4",
    memory_gb=30.0,
    gpu_memory_gb=24,
    max_accelerators=4,
    used_accelerators=3,
)


def provider(*computes: object) -> dict[str, Any]:
    return {"vendors": [{"name": "aws", "regions": [{"name": "us-east-1", "computes": list(computes)}]}]}


def test_hardware_is_read_with_price_and_quota_cheapest_first() -> None:
    cheap = {**COMPUTE, "id": "cheap", "pricePerHour": 0.1, "status": "on the moon", "quota": None}
    found = read_hardware(provider(COMPUTE, cheap))
    assert [one.id for one in found] == ["cheap", L4.id]
    assert found[1] == L4
    assert found[1].replicas_left == 1
    assert (found[0].status, found[0].replicas_left) == (HardwareStatus.UNKNOWN, None)


@pytest.mark.parametrize("missing", ["pricePerHour", "instanceType", "instanceSize", "accelerator"])
def test_hardware_without_a_price_or_a_name_is_left_out(missing: str) -> None:
    assert read_hardware(provider({**COMPUTE, missing: None}, "nonsense")) == []


def test_only_the_recipes_of_the_model_itself_are_read() -> None:
    recipe = {"publicId": "r1", "accelerator": "gpu", "engineType": "vllm", "revision": "abc"}
    others = {"repoId": "acme/other", "recipes": [{**recipe, "publicId": "r2"}]}
    mine = {"repoId": "Acme/Model", "recipes": [recipe, {"engineType": "tei"}]}
    assert read_recipes({"items": [others, mine]}, "acme/model") == [
        Recipe(id="r1", repository="acme/model", engine=Engine.VLLM, accelerator="gpu", revision="abc")
    ]


def test_secrets_and_registry_passwords_are_masked_where_the_body_is_shown() -> None:
    image = Image(variant="custom", url="me/my:1", username="me", password=Secret("registry-password"))
    wanted = WantedDeployment(
        namespace="acme",
        name="e5",
        repository="acme/model",
        hardware=L4,
        image=image,
        secrets={"KEY": Secret("a-secret-value")},
    )
    shown, sent = (create_body(wanted, mask=mask) for mask in (True, False))
    assert shown["model"]["secrets"] == {"KEY": MASK}
    assert shown["model"]["image"]["custom"]["credentials"] == {"username": "me", "password": MASK}
    assert sent["model"]["secrets"] == {"KEY": "a-secret-value"}
    assert sent["model"]["image"]["custom"]["credentials"]["password"] == "registry-password"


def test_a_change_of_the_scaling_sends_the_scaling_only() -> None:
    changes = DeploymentChanges(scaling=Scaling(min_replicas=1, max_replicas=2, zero_after=None))
    scaling = {"minReplica": 1, "maxReplica": 2, "scaleToZeroTimeout": None}
    assert edit_body(changes) == {"compute": {"scaling": scaling}}


@pytest.mark.parametrize(
    ("stored", "ignored"),
    [
        ({"a": 1, "b": {"c": "x", "d": [1]}, "more": True}, []),
        ({"a": 1, "b": {"c": "x"}}, ["b.d"]),
        ({"a": 2, "b": {"c": "y", "d": [1]}}, ["a", "b.c"]),
        ({}, ["a", "b.c", "b.d"]),
        ("nonsense", ["a", "b.c", "b.d"]),
    ],
)
def test_fields_that_the_api_did_not_store_are_found(stored: object, ignored: list[str]) -> None:
    sent = {"a": 1, "b": {"c": "x", "d": [1]}, "none": None, "secrets": {"K": "v"}, "empty": {}}
    assert ignored_fields(sent, stored) == ignored
