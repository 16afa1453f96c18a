"""The requests that manage Inference Endpoints, compared with those that Hugging Face's own client sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi
from lookalikes.deployments import TOKEN, DeploymentsApi, running_deployments

from hubgate.domain.secret import Secret
from hubgate.features.deployments.fields import Access, Scaling
from hubgate.features.deployments.hub import InferenceEndpoints
from hubgate.features.deployments.model import (
    DeploymentChanges,
    Hardware,
    Image,
    WantedDeployment,
)
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.pool import PooledClient
from hubgate.upstreams.hub.deployments import Deployments

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

OWNER = Secret(TOKEN)
CPU = Hardware(
    id="aws-us-east-1-intel-spr-x2",
    vendor="aws",
    region="us-east-1",
    accelerator="cpu",
    instance_type="intel-spr",
    instance_size="x2",
    price_per_hour=0.067,
)
TEI = "ghcr.io/huggingface/text-embeddings-inference:cpu-1.9"
ARGUMENTS: dict[str, Any] = {
    "repository": "intfloat/e5-small-v2",
    "framework": "pytorch",
    "accelerator": "cpu",
    "vendor": "aws",
    "region": "us-east-1",
    "instance_type": "intel-spr",
    "instance_size": "x2",
    "min_replica": 0,
    "max_replica": 1,
    "scale_to_zero_timeout": 15,
    "type": "private",
    "tags": ["hubgate"],
}
"""What `WANTED` is for the client."""
WANTED: dict[str, Any] = {
    "namespace": "acme",
    "name": "e5",
    "repository": "intfloat/e5-small-v2",
    "hardware": CPU,
    "image": Image(variant="tei", url=TEI, port=80, health_route="/health"),
}
IMAGE = {"tei": {"url": TEI, "port": 80, "healthRoute": "/health"}}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeploymentsApi]:
    with running_deployments() as site:
        monkeypatch.setattr(huggingface_hub.constants, "INFERENCE_ENDPOINTS_ENDPOINT", f"{site.url}/v2")
        yield site


@pytest.fixture
async def ours(site: DeploymentsApi) -> AsyncIterator[InferenceEndpoints]:
    client = PooledClient(AddressRule())
    yield InferenceEndpoints(Deployments(client, url=f"{site.url}/v2"))
    await client.close()


@pytest.mark.parametrize(
    ("wanted", "arguments"),
    [
        ({}, {"custom_image": IMAGE}),
        (
            {
                "image": Image(variant="huggingface"),
                "access": Access.AUTHENTICATED,
                "scaling": Scaling(min_replicas=1, max_replicas=2, zero_after=None),
                "task": "sentence-embeddings",
                "revision": "c" * 40,
            },
            {
                "type": "authenticated",
                "min_replica": 1,
                "max_replica": 2,
                "scale_to_zero_timeout": None,
                "task": "sentence-embeddings",
                "revision": "c" * 40,
            },
        ),
        (
            {
                "image": Image(variant="tei", url=TEI, port=80, options={"maxBatchTokens": 16384}),
                "arguments": ("--auto-truncate",),
                "command": ("text-embeddings-router",),
                "environment": {"LOG": "info"},
                "secrets": {"KEY": Secret("hidden")},
                "tags": ("hubgate", "hubgate-1"),
            },
            {
                "custom_image": {"tei": {"url": TEI, "port": 80, "maxBatchTokens": 16384}},
                "container_args": ["--auto-truncate"],
                "container_command": ["text-embeddings-router"],
                "env": {"LOG": "info"},
                "secrets": {"KEY": "hidden"},
                "tags": ["hubgate", "hubgate-1"],
            },
        ),
        (
            {
                "image": Image(variant="custom", url="acme/own:1", username="ada", password=Secret("hidden")),
                "access": Access.PUBLIC,
            },
            {
                "custom_image": {"url": "acme/own:1"},
                "container_registry_username": "ada",
                "container_registry_password": "hidden",
                "type": "public",
            },
        ),
        (
            {
                "image": Image(
                    variant="vLLM",
                    url="vllm/vllm-openai:v0.23.0",
                    port=8000,
                    options={"tensorParallelSize": 1},
                ),
                "framework": "custom",
            },
            {
                "custom_image": {
                    "vLLM": {"url": "vllm/vllm-openai:v0.23.0", "port": 8000, "tensorParallelSize": 1}
                },
                "framework": "custom",
            },
        ),
    ],
)
async def test_creation_is_sent_as_by_the_client(
    site: DeploymentsApi, ours: InferenceEndpoints, wanted: dict[str, Any], arguments: dict[str, Any]
) -> None:
    HfApi(token=TOKEN).create_inference_endpoint("e5", namespace="acme", **ARGUMENTS | arguments)
    site.hosted.clear()
    created, ignored = await ours.create(WantedDeployment(**WANTED | wanted), OWNER)
    theirs, own = site.asked
    assert (own.method, own.path, own.token) == (theirs.method, theirs.path, theirs.token)
    assert own.json == theirs.json
    assert (created.name, ignored) == ("e5", [])


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        (
            DeploymentChanges(scaling=Scaling(min_replicas=1, max_replicas=3, zero_after=30)),
            {"min_replica": 1, "max_replica": 3, "scale_to_zero_timeout": 30},
        ),
        (
            DeploymentChanges(hardware=CPU, revision="d" * 40),
            {
                "accelerator": "cpu",
                "instance_type": "intel-spr",
                "instance_size": "x2",
                "revision": "d" * 40,
            },
        ),
        (
            DeploymentChanges(
                arguments=("--auto-truncate",),
                environment={"LOG": "debug"},
            ),
            {
                "container_args": ["--auto-truncate"],
                "env": {"LOG": "debug"},
            },
        ),
    ],
)
async def test_change_is_sent_as_by_the_client(
    site: DeploymentsApi, ours: InferenceEndpoints, changes: DeploymentChanges, arguments: dict[str, Any]
) -> None:
    await ours.create(WantedDeployment(**WANTED), OWNER)
    HfApi(token=TOKEN).update_inference_endpoint("e5", namespace="acme", **arguments)
    await ours.edit("acme", "e5", changes, OWNER)
    theirs, own = site.asked[-2:]
    assert (own.method, own.path) == (theirs.method, theirs.path)
    assert own.json == theirs.json


async def test_actions_are_sent_as_by_the_client(site: DeploymentsApi, ours: InferenceEndpoints) -> None:
    api = HfApi(token=TOKEN)
    await ours.create(WantedDeployment(**WANTED), OWNER)
    site.advance(100)
    api.scale_to_zero_inference_endpoint("e5", namespace="acme")
    await ours.scale_to_zero("acme", "e5", OWNER)
    api.pause_inference_endpoint("e5", namespace="acme")
    await ours.pause("acme", "e5", OWNER)
    api.resume_inference_endpoint("e5", namespace="acme")
    site.one("e5").enter("paused")
    await ours.resume("acme", "e5", OWNER)
    api.get_inference_endpoint("e5", namespace="acme")
    await ours.show("acme", "e5", OWNER)
    api.list_inference_endpoints("acme")
    await ours.list("acme", OWNER)
    api.list_inference_endpoints_hardware(namespace="acme")
    await ours.hardware("acme", OWNER)
    api.delete_inference_endpoint("e5", namespace="acme")
    await ours.delete("acme", "e5", OWNER)
    sent = [(seen.method, seen.path, seen.json) for seen in site.asked[1:]]
    assert sent[::2] == sent[1::2]
    assert len(sent) == 14


async def test_hardware_is_read_as_by_the_client(site: DeploymentsApi, ours: InferenceEndpoints) -> None:
    theirs = {one.id: one for one in HfApi(token=TOKEN).list_inference_endpoints_hardware(namespace="acme")}
    read = await ours.hardware("acme", OWNER)
    assert {one.id for one in read} == set(theirs)
    for one in read:
        other = theirs[one.id]
        assert (one.vendor, one.region, one.accelerator) == (other.vendor, other.region, other.accelerator)
        assert (one.instance_type, one.instance_size) == (other.instance_type, other.instance_size)
        assert (one.price_per_hour, one.status) == (other.price_per_hour, other.status)
        assert (one.cpus, one.memory_gb, one.gpu_memory_gb) == (
            other.num_cpus,
            other.memory_gb,
            other.gpu_memory_gb,
        )
        assert (one.max_accelerators, one.used_accelerators) == (
            other.max_accelerators,
            other.used_accelerators,
        )
