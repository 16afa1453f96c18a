"""The API of Hugging Face's Inference Endpoints: managing them, and what it reports about a registered endpoint."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from hubgate.domain.deployments import DeploymentChanges, Hardware, Recipe, WantedDeployment
from hubgate.domain.endpoint import Endpoint, Facts, Target, Task
from hubgate.domain.errors import (
    Cause,
    InvalidEndpoint,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreadable,
)
from hubgate.domain.hub import Deployment, DeploymentState
from hubgate.domain.ports import Clock
from hubgate.domain.secret import Secret
from hubgate.upstreams.http.messages import HttpClient
from hubgate.upstreams.hub.deployment_json import (
    create_body,
    edit_body,
    ignored_fields,
    read_deployment,
    read_hardware,
    read_recipes,
)
from hubgate.upstreams.hub.errors import DEPLOYMENT_ERROR_RULES, MANAGING_ERROR_RULES
from hubgate.upstreams.hub.site import HubSite, token_digest
from hubgate.upstreams.hub.ttl_cache import TtlCache
from hubgate.upstreams.urls import base_url

ENDPOINTS_API = "https://api.endpoints.huggingface.cloud/v2"
CATALOG = "https://endpoints.huggingface.co/api/v1/catalog"
RECIPE_SECONDS = 600.0
_PAGE = "https://endpoints.huggingface.co"
_NAME = re.compile(r"(?!\.)[\w.-]+", re.ASCII)
# llama.cpp reports the path of its file instead.
_REPOSITORY = re.compile(r"(?!.*\.gguf$)\w[\w.-]*/[\w.-]+", re.ASCII)
DEPLOYED_FOLDER = "/repository"
"""Where Inference Endpoints have their model, whichever it is."""
_EMBEDDING = frozenset({Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING})
_MAX_LISTED = 10
_MAX_CACHED = 256
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


class Deployments:
    """Hugging Face's API that manages Inference Endpoints. Every method raises `UpstreamError` if a request fails.

    Only `create` cannot be repeated safely: it is sent once, and never again.

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
        self._managing = reached(error_rules=MANAGING_ERROR_RULES)
        self._catalog = site(
            catalog_url or CATALOG,
            name="The Inference Catalog",
            setting="HUBGATE_ENDPOINTS_CATALOG_URL",
            error_rules=(),
        )
        self._recipes: TtlCache[Sequence[Recipe]] = TtlCache(
            seconds=RECIPE_SECONDS, max_entries=_MAX_CACHED, clock=clock
        )

    async def list(self, namespace: str, token: Secret) -> Sequence[Deployment]:
        """The Inference Endpoints of a user or an organisation, sorted by name. Not cached, because states change.

        Raises:
            InvalidRequest: the namespace is not valid.
            UpstreamError: they cannot be listed.
        """
        about = f"Inference Endpoints of [{namespace}]"
        reply = await self._site.fetch(_path(namespace), token, about=about)
        items = reply.get("items") if isinstance(reply, dict) else None
        found = [read_deployment(item, namespace) for item in items or () if isinstance(item, dict)]
        return sorted(found, key=lambda deployment: deployment.name)

    async def hardware(self, namespace: str, token: Secret) -> Sequence[Hardware]:
        """What a namespace may run on, with prices and quota, cheapest first. Not cached."""
        path = f"/provider/{_valid_name(namespace)}"
        return read_hardware(await self._managing.fetch(path, token, about=f"hardware for [{namespace}]"))

    async def show(self, namespace: str, name: str, token: Secret) -> Deployment:
        """Raises: NotFound."""
        try:
            return read_deployment(_item(await self._ask("GET", namespace, name, token)), namespace)
        except UpstreamRefused as error:
            if error.status != 404:
                raise
            raise NotFound(error.message, remedy=error.remedy) from error

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
        path = _path(wanted.namespace)
        try:
            reply = await self._managing.fetch(path, token, about=about, method="POST", body=body)
        except UpstreamError as error:
            if not _may_have_been_sent(error):
                raise
            raise OutcomeUnknown(
                f"Whether the Inference Endpoint [{wanted.name}] was created is unknown. {error.message}",
                remedy="It is not created again. hubgate asks Hugging Face whether it is there.",
                cause=error.cause,
            ) from error
        item = _item(reply)
        return read_deployment(item, wanted.namespace), ignored_fields(body, item)

    def changes(self, changes: DeploymentChanges) -> Mapping[str, Any]:
        """The body that `edit` would send, with its secrets masked."""
        return edit_body(changes, mask=True)

    async def edit(
        self, namespace: str, name: str, changes: DeploymentChanges, token: Secret
    ) -> tuple[Deployment, Sequence[str]]:
        """Change an Inference Endpoint; returns as `create` does."""
        body = edit_body(changes, mask=False)
        item = _item(await self._ask("PUT", namespace, name, token, body=body))
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
            return read_deployment(_item(await self._ask("GET", namespace, name, token)), namespace)

    async def scale_to_zero(self, namespace: str, name: str, token: Secret) -> Deployment:
        return await self._act(namespace, name, "/scale-to-zero", token)

    async def delete(self, namespace: str, name: str, token: Secret) -> None:
        """Delete it for good. One that does not exist is not an error."""
        try:
            await self._ask("DELETE", namespace, name, token)
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
        reply = await self._catalog.fetch("/list", token, about=f"recipes for [{repository}]", query=query)
        return read_recipes(reply, repository)

    async def _act(self, namespace: str, name: str, action: str, token: Secret) -> Deployment:
        reply = await self._ask("POST", namespace, name, token, action=action)
        return read_deployment(_item(reply) or {"name": name}, namespace)

    async def _ask(
        self, method: str, namespace: str, name: str, token: Secret, *, action: str = "", body: object = None
    ) -> Any:
        path = f"{_path(namespace)}/{_valid_name(name)}{action}"
        about = f"Inference Endpoint [{name}]"
        return await self._managing.fetch(path, token, about=about, method=method, body=body)


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


def _path(namespace: str) -> str:
    return f"/endpoint/{_valid_name(namespace)}"


def _item(reply: object) -> dict[str, Any]:
    return reply if isinstance(reply, dict) else {}


def _may_have_been_sent(error: UpstreamError) -> bool:
    """Whether a request may have been carried out although it failed."""
    if isinstance(error, UpstreamRefused):
        return error.status >= 500
    return isinstance(error, UpstreamUnreadable) or error.cause not in _NEVER_SENT


def _valid_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"[{name[:200]}] is not a valid name at Hugging Face.", remedy="Copy it again.")
    return name
