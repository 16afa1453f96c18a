"""Hugging Face's Inference Endpoints, as their own interface tells of them: which there are, and how they are.

The base is `HUBGATE_ENDPOINTS_API_URL`, else Hugging Face's; huggingface_hub knows no other than the latter.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from hubgate.domain.endpoint import Endpoint, Facts, Target, Task
from hubgate.domain.errors import (
    Cause,
    InvalidEndpoint,
    InvalidRequest,
    UpstreamError,
    UpstreamRefused,
)
from hubgate.domain.hub import Deployment, DeploymentState
from hubgate.domain.ports import Clock
from hubgate.domain.secret import Secret
from hubgate.upstreams.http.messages import HttpClient
from hubgate.upstreams.hub.cards import read_deployment
from hubgate.upstreams.hub.errors import DEPLOYMENT_TROUBLES
from hubgate.upstreams.hub.requests import HubSite
from hubgate.upstreams.urls import base_url

ENDPOINTS_API = "https://api.endpoints.huggingface.cloud/v2"
_PAGE = "https://endpoints.huggingface.co"
_NAME = re.compile(r"(?!\.)[\w.-]+", re.ASCII)
_REPOSITORY = re.compile(r"(?!.*\.gguf$)\w[\w.-]*/[\w.-]+", re.ASCII)  # llama.cpp tells the path of its file
_EMBEDDING = frozenset({Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING})
_MOST_NAMED = 10


class Deployments:
    """The interface by which Inference Endpoints are managed; this reads, and resumes.

    Args:
        client: sends the requests; not closed here.
        url: its base where it is another than Hugging Face's.
        offline: never ask it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        client: HttpClient,
        *,
        url: str | None = None,
        offline: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        self._site = HubSite(
            client,
            url or ENDPOINTS_API,
            name="Hugging Face's interface to Inference Endpoints",
            setting="HUBGATE_ENDPOINTS_API_URL",
            troubles=DEPLOYMENT_TROUBLES,
            offline=offline,
            clock=clock,
        )

    async def list(self, namespace: str, token: Secret) -> Sequence[Deployment]:
        """The Inference Endpoints of a user or an organisation, by name; never remembered, as states change.

        Raises:
            InvalidRequest: this can be no namespace.
            UpstreamError: they cannot be listed.
        """
        path = f"/endpoint/{_checked(namespace)}"
        reply = await self._site.ask(path, token, about=f"Inference Endpoints of [{namespace}]")
        items = reply.get("items") if isinstance(reply, dict) else None
        found = [read_deployment(item, namespace) for item in items or () if isinstance(item, dict)]
        return sorted(found, key=lambda deployment: deployment.name)

    async def resume(self, namespace: str, name: str, token: Secret) -> Deployment:
        """Wake a paused Inference Endpoint; how it is now. One that runs already stays as it is.

        Raises:
            InvalidRequest: these can be no names.
            UpstreamError: it cannot be resumed.
        """
        path, about = f"/endpoint/{_checked(namespace)}/{_checked(name)}", f"Inference Endpoint [{name}]"
        try:
            reply = await self._site.ask(f"{path}/resume", token, about=about, method="POST")
        except UpstreamRefused as error:
            if error.status != 400:
                raise
            reply = await self._site.ask(path, token, about=about)
        return read_deployment(reply if isinstance(reply, dict) else {"name": name}, namespace)


def match(deployments: Sequence[Deployment], url: str) -> Deployment | None:
    """The one behind a URL as it was pasted: slashes, case, `http` and routes such as `/v1` do not matter."""
    wanted = _plain(base_url(url))
    return next((one for one in deployments if one.url and _plain(one.url) == wanted), None)


async def deployment_facts(deployments: Deployments, target: Target) -> Facts:
    """What Hugging Face tells of the Inference Endpoint behind an endpoint's URL; nothing without a namespace.

    A token that may not list, or a list that cannot be had, is a warning: the server itself still tells.

    Raises:
        InvalidEndpoint: the namespace has no such URL, or another model runs there than the one that is named.
        UpstreamError: it is paused, or has failed.
    """
    endpoint, token = target.endpoint, target.first_token
    if endpoint.namespace is None or not endpoint.url:
        return Facts()
    if token is None:
        return Facts(
            warnings=(f"Without a token the endpoints of [{endpoint.namespace}] cannot be looked up.",)
        )
    try:
        listed = await deployments.list(endpoint.namespace, token)
    except UpstreamError as error:
        if error.cause is Cause.MODEL_NOT_FOUND:
            raise InvalidEndpoint(error.message, remedy=error.remedy) from error
        said = f"The endpoints of [{endpoint.namespace}] could not be looked up. {error.message}"
        return Facts(warnings=(said,))
    found = match(listed, endpoint.url)
    if found is None:
        raise _no_such(endpoint.namespace, listed)
    _check_state(found)
    check_model(endpoint, found.repository, "Hugging Face")
    stale = found.state is DeploymentState.UPDATE_FAILED
    warning = f"Its last update failed; the version before answers. {found.status_message}".strip()
    return Facts(
        engine=found.engine,
        model=found.repository,
        revision=found.revision,
        warnings=(warning,) if stale else (),
    )


def completed(facts: Facts, told: Facts) -> Facts:
    """What the server says of itself, and where it is silent what Hugging Face told.

    On Inference Endpoints a server often knows its model as the folder `/repository` only.
    """
    named = facts.model is not None and _REPOSITORY.fullmatch(facts.model) is not None
    return replace(
        facts,
        engine=facts.engine or told.engine,
        model=facts.model if named else told.model or facts.model,
        revision=facts.revision or told.revision,
        warnings=(*facts.warnings, *told.warnings),
    )


def check_model(endpoint: Endpoint, reported: str | None, by: str) -> None:
    """Refuse an embedding endpoint whose named model is not the one that runs there; for other tasks any name will do.

    What is reported counts only if it is a repository's name: servers also tell folders, and names of their own.

    Raises:
        InvalidEndpoint: with both names.
    """
    named = endpoint.model
    if endpoint.task not in _EMBEDDING or not named or not reported or not _REPOSITORY.fullmatch(reported):
        return
    if named.strip().casefold() != reported.casefold():
        raise InvalidEndpoint(
            f"The model there is [{reported}], as {by} says, not [{named[:200]}].",
            remedy="Name that model, or leave [model] out; or give the URL of the other one.",
        )


def _check_state(found: Deployment) -> None:
    if found.paused:
        raise UpstreamError(
            f"The endpoint [{found.name}] is paused. {found.status_message}".strip(),
            remedy=f"Resume it on its page at {_PAGE}; it does not wake by itself.",
            cause=Cause.PAUSED,
        )
    if found.state is DeploymentState.FAILED:
        raise UpstreamError(
            f"The endpoint [{found.name}] has failed. {found.status_message}".strip(),
            remedy=f"Look at its log at {_PAGE}.",
            cause=Cause.UPSTREAM_FAILED,
        )


def _no_such(namespace: str, listed: Sequence[Deployment]) -> InvalidEndpoint:
    if not listed:
        return InvalidEndpoint(
            f"[{namespace}] has no Inference Endpoints.",
            remedy="Check the namespace, or leave it out.",
        )
    idle = [one.name for one in listed if one.url is None]
    known = ", ".join(f"{one.name} ({one.url})" for one in listed[:_MOST_NAMED] if one.url)
    message = f"None of the Inference Endpoints of [{namespace}] has this URL."
    if known:
        message += f" It has {known}."
    if idle:
        message += f" Without a URL at the moment, as paused ones are: {', '.join(idle[:_MOST_NAMED])}."
    return InvalidEndpoint(
        message, remedy="Copy the URL again, resume the endpoint, or leave [namespace] out."
    )


def _plain(url: str) -> str:
    parts = urlsplit(url.strip().casefold())
    path = parts.path.rstrip("/").removesuffix("/v1")
    return f"{parts.netloc.removesuffix(':443')}{path}"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"[{name[:200]}] is no name at Hugging Face.", remedy="Copy it again.")
    return name
