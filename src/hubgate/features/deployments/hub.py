"""The API of Hugging Face's Inference Endpoints: creating and changing them, hardware and recipes.

huggingface_hub documents the requests; a test compares ours with those of the installed version.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from hubgate.domain.errors import Cause, OutcomeUnknown, UpstreamError, UpstreamRefused, UpstreamUnreadable
from hubgate.domain.hub import Deployment
from hubgate.domain.ports import Clock
from hubgate.domain.secret import Secret
from hubgate.features.deployments.fields import Scaling
from hubgate.features.deployments.model import (
    DeploymentChanges,
    Hardware,
    HardwareStatus,
    Image,
    Recipe,
    WantedDeployment,
)
from hubgate.upstreams.engines.specs import engine_of_image
from hubgate.upstreams.hub.deployments import (
    Deployments,
    endpoints_path,
    item_of,
    read_deployment,
    valid_name,
)
from hubgate.upstreams.hub.site import token_digest
from hubgate.upstreams.hub.ttl_cache import TtlCache
from hubgate.upstreams.json_values import count_of, field_of, list_of, number_of, size_of, text_of

RECIPE_SECONDS = 600.0
_MAX_CACHED = 256
MASK = "***"
_NEVER_RETURNED = frozenset({"secrets", "credentials"})
"""Fields that the API redacts, so they cannot be compared."""
_NEVER_SENT = frozenset(
    {
        Cause.ADDRESS_REFUSED,
        Cause.CONNECTION_REFUSED,
        Cause.INVALID_ENDPOINT,
        Cause.NAME_NOT_RESOLVED,
        Cause.OVERLOADED,
        Cause.TLS_FAILED,
        Cause.UPSTREAM_REDIRECTS,
    }
)
"""Why a request failed before it was carried out."""


class InferenceEndpoints:
    """Manages Inference Endpoints. Every method raises `UpstreamError` if a request fails.

    Only `create` cannot be repeated safely: it is sent once, and never again.
    """

    def __init__(self, deployments: Deployments, clock: Clock = time.monotonic) -> None:
        self._deployments = deployments
        self.list = deployments.list
        self.show = deployments.show
        self._recipes: TtlCache[Sequence[Recipe]] = TtlCache(
            seconds=RECIPE_SECONDS, max_entries=_MAX_CACHED, clock=clock
        )

    async def hardware(self, namespace: str, token: Secret) -> Sequence[Hardware]:
        """What a namespace may run on, with prices and quota, cheapest first. Not cached."""
        path = f"/provider/{valid_name(namespace)}"
        return read_hardware(
            await self._deployments.managing.fetch(path, token, about=f"hardware for [{namespace}]")
        )

    def body(self, wanted: WantedDeployment) -> Mapping[str, Any]:
        """The body that `create` would send, with its secrets masked."""
        return create_body(wanted, mask=True)

    async def create(self, wanted: WantedDeployment, token: Secret) -> tuple[Deployment, Sequence[str]]:
        """Create an Inference Endpoint; returns it, and the fields that Hugging Face ignored.

        Raises:
            OutcomeUnknown: the request may have been carried out, but there was no usable reply.
        """
        body = create_body(wanted, mask=False)
        about = f"Inference Endpoint [{wanted.name}]"
        path = endpoints_path(wanted.namespace)
        try:
            reply = await self._deployments.managing.fetch(path, token, about=about, method="POST", body=body)
        except UpstreamError as error:
            if not _may_have_been_sent(error):
                raise
            raise OutcomeUnknown(
                f"Whether the Inference Endpoint [{wanted.name}] was created is unknown. {error.message}",
                remedy="It is not created again. hubgate asks Hugging Face whether it is there.",
                cause=error.cause,
            ) from error
        item = item_of(reply)
        return read_deployment(item, wanted.namespace), ignored_fields(body, item)

    async def edit(
        self, namespace: str, name: str, changes: DeploymentChanges, token: Secret
    ) -> tuple[Deployment, Sequence[str]]:
        body = edit_body(changes)
        item = item_of(await self._deployments.ask("PUT", namespace, name, token, body=body))
        return read_deployment(item, namespace), ignored_fields(body, item)

    async def pause(self, namespace: str, name: str, token: Secret) -> Deployment:
        return await self._act(namespace, name, "/pause", token)

    async def resume(self, namespace: str, name: str, token: Secret) -> Deployment:
        """Resume a paused Inference Endpoint, and return its new state. A running one is left as it is.

        Raises:
            InvalidRequest: a name is not valid.
            UpstreamError: it cannot be resumed.
        """
        try:
            return await self._act(namespace, name, "/resume", token)
        except UpstreamRefused as error:
            if error.status != 400:
                raise
            return read_deployment(
                item_of(await self._deployments.ask("GET", namespace, name, token)), namespace
            )

    async def scale_to_zero(self, namespace: str, name: str, token: Secret) -> Deployment:
        return await self._act(namespace, name, "/scale-to-zero", token)

    async def delete(self, namespace: str, name: str, token: Secret) -> None:
        """Delete it for good. One that does not exist is not an error."""
        try:
            await self._deployments.ask("DELETE", namespace, name, token)
        except UpstreamRefused as error:
            if error.status != 404:
                raise

    async def recipes(self, repository: str, token: Secret | None) -> Sequence[Recipe]:
        """The ways to run a model that Hugging Face has tested. Cached for minutes."""
        return await self._recipes.get(
            (repository, token_digest(token)), lambda: self._fetch_recipes(repository, token)
        )

    async def _fetch_recipes(self, repository: str, token: Secret | None) -> Sequence[Recipe]:
        name = repository.rpartition("/")[2]
        query = [("search", name)]
        reply = await self._deployments.catalog.fetch(
            "/list", token, about=f"recipes for [{repository}]", query=query
        )
        return read_recipes(reply, repository)

    async def _act(self, namespace: str, name: str, action: str, token: Secret) -> Deployment:
        reply = await self._deployments.ask("POST", namespace, name, token, action=action)
        return read_deployment(item_of(reply) or {"name": name}, namespace)


def _may_have_been_sent(error: UpstreamError) -> bool:
    """Whether a request may have been carried out although it failed."""
    if isinstance(error, UpstreamRefused):
        return error.status >= 500
    return isinstance(error, UpstreamUnreadable) or error.cause not in _NEVER_SENT


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


def edit_body(changes: DeploymentChanges) -> dict[str, Any]:
    """The body that changes an Inference Endpoint: only what changes."""
    compute: dict[str, Any] = {}
    if changes.hardware is not None:
        compute |= _compute(changes.hardware)
    if changes.scaling is not None:
        compute["scaling"] = _scaling(changes.scaling)
    model: dict[str, Any] = {}
    if changes.revision is not None:
        model["revision"] = changes.revision
    if changes.arguments is not None:
        model["args"] = list(changes.arguments)
    if changes.environment is not None:
        model["env"] = dict(changes.environment)
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
