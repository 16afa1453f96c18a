"""The API of Hugging Face's Inference Endpoints: managing them, and what it reports about a registered endpoint."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from hubgate.domain.endpoint import Endpoint, Facts, Target, Task
from hubgate.domain.errors import (
    Cause,
    InvalidEndpoint,
    InvalidRequest,
    NotFound,
    UpstreamError,
    UpstreamRefused,
)
from hubgate.domain.hub import Deployment, DeploymentState
from hubgate.domain.ports import Clock
from hubgate.domain.secret import Secret
from hubgate.upstreams.engines.specs import engine_of_image
from hubgate.upstreams.http.messages import HttpClient
from hubgate.upstreams.hub.errors import DEPLOYMENT_ERROR_RULES, MANAGING_ERROR_RULES
from hubgate.upstreams.hub.site import HubSite
from hubgate.upstreams.json_values import count_of, dict_of, list_of, number_of, text_of
from hubgate.upstreams.urls import base_url

ENDPOINTS_API = "https://api.endpoints.huggingface.cloud/v2"
CATALOG = "https://endpoints.huggingface.co/api/v1/catalog"
_PAGE = "https://endpoints.huggingface.co"
_NAME = re.compile(r"(?!\.)[\w.-]+", re.ASCII)
# llama.cpp reports the path of its file instead.
_REPOSITORY = re.compile(r"(?!.*\.gguf$)\w[\w.-]*/[\w.-]+", re.ASCII)
DEPLOYED_FOLDER = "/repository"
"""Where Inference Endpoints have their model, whichever it is."""
_EMBEDDING = frozenset({Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING})
_MAX_LISTED = 10


class Deployments:
    """What runs at Inference Endpoints. `hubgate.features.deployments` also creates and changes it.

    Args:
        client: sends the requests; not closed here.
        url: the API's URL, if it is not Hugging Face's.
        catalog_url: the URL of the Inference Catalog, if it is not Hugging Face's.
        offline: send no requests.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        url: str | None = None,
        catalog_url: str | None = None,
        offline: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        site = partial(HubSite, client, offline=offline, clock=clock)
        reached = partial(
            site,
            url or ENDPOINTS_API,
            name="The API of Inference Endpoints",
            setting="HUBGATE_ENDPOINTS_API_URL",
        )
        self._site = reached(error_rules=DEPLOYMENT_ERROR_RULES)
        self.managing = reached(error_rules=MANAGING_ERROR_RULES)
        self.catalog = site(
            catalog_url or CATALOG,
            name="The Inference Catalog",
            setting="HUBGATE_ENDPOINTS_CATALOG_URL",
            error_rules=(),
        )

    async def list(self, namespace: str, token: Secret) -> Sequence[Deployment]:
        """The Inference Endpoints of a user or an organisation, sorted by name. Not cached, because states change.

        Raises:
            InvalidRequest: the namespace is not valid.
            UpstreamError: they cannot be listed.
        """
        about = f"Inference Endpoints of [{namespace}]"
        reply = await self._site.fetch(endpoints_path(namespace), token, about=about)
        items = reply.get("items") if isinstance(reply, dict) else None
        found = [read_deployment(item, namespace) for item in items or () if isinstance(item, dict)]
        return sorted(found, key=lambda deployment: deployment.name)

    async def show(self, namespace: str, name: str, token: Secret) -> Deployment:
        try:
            return read_deployment(item_of(await self.ask("GET", namespace, name, token)), namespace)
        except UpstreamRefused as error:
            if error.status != 404:
                raise
            raise NotFound(error.message, remedy=error.remedy) from error

    async def ask(
        self, method: str, namespace: str, name: str, token: Secret, *, action: str = "", body: object = None
    ) -> Any:
        path = f"{endpoints_path(namespace)}/{valid_name(name)}{action}"
        about = f"Inference Endpoint [{name}]"
        return await self.managing.fetch(path, token, about=about, method=method, body=body)


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


def find_deployment(deployments: Sequence[Deployment], url: str) -> Deployment | None:
    """The deployment behind a pasted URL: slashes, case, `http` and routes such as `/v1` do not matter."""
    wanted = _normalize(base_url(url))
    return next((one for one in deployments if one.url and _normalize(one.url) == wanted), None)


async def deployment_facts(deployments: Deployments, target: Target) -> Facts:
    """What Hugging Face reports about the Inference Endpoint behind a URL; nothing without a namespace.

    If they cannot be listed, that is only a warning: the server itself reports most facts.

    Raises:
        InvalidEndpoint: no deployment of the namespace has this URL, or it runs another model.
        UpstreamError: it is paused, or has failed.
    """
    endpoint, token = target.endpoint, target.first_token
    if endpoint.namespace is None or not endpoint.url:
        return Facts()
    if token is None:
        return Facts(warnings=(f"The endpoints of [{endpoint.namespace}] cannot be listed without a token.",))
    try:
        listed = await deployments.list(endpoint.namespace, token)
    except UpstreamError as error:
        if error.cause is Cause.MODEL_NOT_FOUND:
            raise InvalidEndpoint(error.message, remedy=error.remedy) from error
        warning = f"The endpoints of [{endpoint.namespace}] could not be listed. {error.message}"
        return Facts(warnings=(warning,))
    found = find_deployment(listed, endpoint.url)
    if found is None:
        raise _no_such(endpoint.namespace, listed)
    _check_state(found)
    check_model(endpoint, found.repository, "Hugging Face")
    is_stale = found.state is DeploymentState.UPDATE_FAILED
    warning = f"Its last update failed; the previous version is running. {found.status_message}".strip()
    return Facts(
        engine=found.engine,
        model=found.repository,
        revision=found.revision,
        warnings=(warning,) if is_stale else (),
    )


def merge_facts(facts: Facts, reported: Facts) -> Facts:
    """The facts that the server reports, and those of Hugging Face where it reports none.

    On Inference Endpoints, many servers know only the folder of their model, `/repository`.
    """
    has_name = facts.model is not None and is_repository(facts.model)
    return replace(
        facts,
        engine=facts.engine or reported.engine,
        model=facts.model if has_name else reported.model or facts.model,
        revision=facts.revision or reported.revision,
        warnings=(*facts.warnings, *reported.warnings),
    )


def is_repository(model: str) -> bool:
    """Whether this is the name of a repository, rather than of a file or a folder, or a name of the server's own."""
    return _REPOSITORY.fullmatch(model) is not None


def check_model(endpoint: Endpoint, reported: str | None, by: str) -> None:
    """Check that an embedding endpoint runs the model that it names. For other tasks, names may differ.

    Only the name of a repository is compared: servers also report folders, and names of their own.

    Raises:
        InvalidEndpoint: the names differ.
    """
    named = endpoint.model
    if endpoint.task not in _EMBEDDING or not named or not reported or not is_repository(reported):
        return
    if named.strip().casefold() != reported.casefold():
        raise InvalidEndpoint(
            f"The model there is [{reported}] according to {by}, not [{named[:200]}].",
            remedy="Use that model's name, or remove [model], and set [hub_model] if it is a copy of yours; or use the URL of the "
            "other model.",
        )


def _check_state(found: Deployment) -> None:
    if found.paused:
        raise UpstreamError(
            f"The endpoint [{found.name}] is paused. {found.status_message}".strip(),
            remedy=f"Resume it on its page at {_PAGE}. It does not wake up by itself.",
            cause=Cause.PAUSED,
        )
    if found.state is DeploymentState.FAILED:
        raise UpstreamError(
            f"The endpoint [{found.name}] has failed. {found.status_message}".strip(),
            remedy=f"Check its log at {_PAGE}.",
            cause=Cause.UPSTREAM_FAILED,
        )


def _no_such(namespace: str, listed: Sequence[Deployment]) -> InvalidEndpoint:
    if not listed:
        return InvalidEndpoint(
            f"[{namespace}] has no Inference Endpoints.",
            remedy="Check the namespace, or remove it.",
        )
    idle = [one.name for one in listed if one.url is None]
    known = ", ".join(f"{one.name} ({one.url})" for one in listed[:_MAX_LISTED] if one.url)
    message = f"None of the Inference Endpoints of [{namespace}] has this URL."
    if known:
        message += f" It has {known}."
    if idle:
        message += f" Without a URL, because they are paused or starting: {', '.join(idle[:_MAX_LISTED])}."
    return InvalidEndpoint(message, remedy="Copy the URL again, resume the endpoint, or remove [namespace].")


def _normalize(url: str) -> str:
    parts = urlsplit(url.strip().casefold())
    path = parts.path.rstrip("/").removesuffix("/v1")
    return f"{parts.netloc.removesuffix(':443')}{path}"


def endpoints_path(namespace: str) -> str:
    return f"/endpoint/{valid_name(namespace)}"


def item_of(reply: object) -> dict[str, Any]:
    return reply if isinstance(reply, dict) else {}


def valid_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"[{name[:200]}] is not a valid name at Hugging Face.", remedy="Copy it again.")
    return name
