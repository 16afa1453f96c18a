"""Inference Endpoints in Hugging Face's JSON, read and written.

huggingface_hub documents the requests; a test compares ours with those of the installed version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hubgate.domain.deployments import (
    DeploymentChanges,
    Hardware,
    HardwareStatus,
    Image,
    Recipe,
    Scaling,
    WantedDeployment,
)
from hubgate.domain.hub import Deployment, DeploymentState
from hubgate.domain.secret import Secret
from hubgate.upstreams.engines.specs import engine_of_image
from hubgate.upstreams.json_values import count_of, dict_of, field_of, list_of, number_of, size_of, text_of

MASK = "***"
_NEVER_RETURNED = frozenset({"secrets", "credentials"})
"""Fields that the API redacts, so they cannot be compared."""


def read_deployment(item: dict[str, Any], namespace: str) -> Deployment:
    model, status, compute = (dict_of(item, key) for key in ("model", "status", "compute"))
    provider, image, scaling = dict_of(item, "provider"), dict_of(model, "image"), dict_of(compute, "scaling")
    kind = next(iter(image), None)
    address = text_of(image.get(kind), "url") if kind else None
    word = text_of(status, "state")
    where = (text_of(provider, "vendor"), text_of(provider, "region"))
    what = (text_of(compute, "instanceType"), text_of(compute, "instanceSize"))
    return Deployment(
        name=text_of(item, "name") or "",
        namespace=namespace,
        state=DeploymentState(word) if word in set(DeploymentState) else DeploymentState.UNKNOWN,
        status_message=text_of(status, "message") or "",
        url=text_of(status, "url"),
        repository=text_of(model, "repository"),
        revision=text_of(model, "revision"),
        task=text_of(model, "task"),
        engine=engine_of_image(kind, address),
        image=address or kind,
        access=text_of(item, "type"),
        hardware=" ".join(filter(None, what)) or None,
        region=" ".join(filter(None, where)) or None,
        min_replicas=count_of(scaling, "minReplica"),
        max_replicas=count_of(scaling, "maxReplica"),
        zero_after=count_of(scaling, "scaleToZeroTimeout"),
        ready_replicas=count_of(status, "readyReplica"),
        target_replicas=count_of(status, "targetReplica"),
        accelerator=text_of(compute, "accelerator"),
        tags=tuple(tag for tag in list_of(item, "tags") if isinstance(tag, str)),
        price_per_hour=number_of(compute, "pricePerHour"),
    )


def read_hardware(reply: object) -> list[Hardware]:
    """Every instance in every region, cheapest first. One without a price or a name is left out."""
    found = [
        hardware
        for vendor in list_of(reply, "vendors")
        for region in list_of(vendor, "regions")
        for compute in list_of(region, "computes")
        if (hardware := _read_compute(compute, text_of(vendor, "name"), text_of(region, "name")))
    ]
    return sorted(found, key=lambda one: (one.price_per_hour, one.id))


def _read_compute(compute: object, vendor: str | None, region: str | None) -> Hardware | None:
    price = number_of(compute, "pricePerHour")
    kind, size = text_of(compute, "instanceType"), text_of(compute, "instanceSize")
    accelerator = text_of(compute, "accelerator")
    if price is None or not (vendor and region and kind and size and accelerator):
        return None
    status, quota = text_of(compute, "status"), field_of(compute, "quota")
    return Hardware(
        id=text_of(compute, "id") or f"{vendor}-{region}-{kind}-{size}",
        vendor=vendor,
        region=region,
        accelerator=accelerator,
        instance_type=kind,
        instance_size=size,
        price_per_hour=price,
        status=HardwareStatus(status) if status in set(HardwareStatus) else HardwareStatus.UNKNOWN,
        architecture=text_of(compute, "architecture") or "",
        accelerators=size_of(compute, "numAccelerators") or 1,
        cpus=count_of(compute, "numCpus"),
        memory_gb=number_of(compute, "memoryGb"),
        gpu_memory_gb=number_of(compute, "gpuMemoryGb"),
        max_accelerators=count_of(quota, "maxAccelerators"),
        used_accelerators=count_of(quota, "usedAccelerators") or 0,
    )


def read_recipes(reply: object, repository: str) -> list[Recipe]:
    """The recipes of one model; a search may return others."""
    return [
        Recipe(
            id=recipe_id,
            repository=repository,
            engine=engine_of_image(text_of(recipe, "engineType"), None),
            accelerator=text_of(recipe, "accelerator") or "",
            gguf_file=text_of(recipe, "ggufFile"),
            revision=text_of(recipe, "revision"),
        )
        for item in list_of(reply, "items")
        if (text_of(item, "repoId") or "").casefold() == repository.casefold()
        for recipe in list_of(item, "recipes")
        if (recipe_id := text_of(recipe, "publicId"))
    ]


def create_body(wanted: WantedDeployment, *, mask: bool) -> dict[str, Any]:
    """The body that creates an Inference Endpoint.

    Args:
        wanted: what to create.
        mask: whether to hide its secrets.
    """
    model: dict[str, Any] = {
        "repository": wanted.repository,
        "framework": wanted.framework,
        "revision": wanted.revision,
        "image": _image(wanted.image, mask=mask),
    }
    if wanted.task is not None:  # the API refuses null
        model["task"] = wanted.task
    if wanted.command:
        model["command"] = list(wanted.command)
    if wanted.arguments:
        model["args"] = list(wanted.arguments)
    if wanted.environment:
        model["env"] = dict(wanted.environment)
    if wanted.secrets:
        model["secrets"] = _secrets(wanted.secrets, mask=mask)
    return {
        "name": wanted.name,
        "type": wanted.access.value,
        "provider": {"vendor": wanted.hardware.vendor, "region": wanted.hardware.region},
        "compute": {**_compute(wanted.hardware), "scaling": _scaling(wanted.scaling)},
        "model": model,
        "tags": list(wanted.tags),
    }


def edit_body(changes: DeploymentChanges, *, mask: bool) -> dict[str, Any]:
    """The body that changes an Inference Endpoint: only what changes."""
    compute: dict[str, Any] = {}
    if changes.hardware is not None:
        compute |= _compute(changes.hardware)
    if changes.scaling is not None:
        compute["scaling"] = _scaling(changes.scaling)
    model: dict[str, Any] = {}
    if changes.image is not None:
        model["image"] = _image(changes.image, mask=mask)
    if changes.revision is not None:
        model["revision"] = changes.revision
    if changes.task is not None:
        model["task"] = changes.task
    if changes.arguments is not None:
        model["args"] = list(changes.arguments)
    if changes.environment is not None:
        model["env"] = dict(changes.environment)
    if changes.secrets is not None:
        model["secrets"] = _secrets(changes.secrets, mask=mask)
    return {key: value for key, value in (("compute", compute), ("model", model)) if value}


def ignored_fields(sent: Mapping[str, Any], stored: object, path: str = "") -> list[str]:
    """The fields of a body that the API did not store as sent: it ignores fields that it does not know."""
    found: list[str] = []
    for key, value in sent.items():
        name = f"{path}{key}"
        there = field_of(stored, key)
        if value is None or key in _NEVER_RETURNED:
            continue
        if isinstance(value, dict):
            found += ignored_fields(value, there, f"{name}.") if value else []
        elif value != there:
            found.append(name)
    return found


def _compute(hardware: Hardware) -> dict[str, Any]:
    return {
        "accelerator": hardware.accelerator,
        "instanceType": hardware.instance_type,
        "instanceSize": hardware.instance_size,
    }


def _scaling(scaling: Scaling) -> dict[str, Any]:
    return {
        "minReplica": scaling.min_replicas,
        "maxReplica": scaling.max_replicas,
        "scaleToZeroTimeout": scaling.zero_after,
    }


def _image(image: Image, *, mask: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"url": image.url, "port": image.port, "healthRoute": image.health_route}
    variant = {key: value for key, value in fields.items() if value is not None} | dict(image.options)
    if image.username is not None:
        credentials = {"username": image.username}
        if image.password is not None:
            credentials["password"] = MASK if mask else image.password.reveal()
        variant["credentials"] = credentials
    return {image.variant: variant}


def _secrets(secrets: Mapping[str, Secret], *, mask: bool) -> dict[str, str]:
    return {name: MASK if mask else secret.reveal() for name, secret in secrets.items()}
