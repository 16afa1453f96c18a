"""Models hosted by Hugging Face's Inference Providers, behind its router; formerly the Hosted Inference API.

hubgate looks up who serves a model when the endpoint is registered, never during a call. The endpoint stays with that
provider until it is accepted again: vectors of one model from two providers may not be comparable.
"""

from __future__ import annotations

from dataclasses import replace

from hubgate.domain.calls import Chat, Complete, Embed, Rerank
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Engine, Facts, Target, Task
from hubgate.domain.errors import Cause, HubgateError, InvalidEndpoint
from hubgate.domain.hub import ModelCard
from hubgate.upstreams.engines.generation import GenerationRoute
from hubgate.upstreams.engines.providers import (
    AUTO,
    CHAT_ROUTE,
    COMPLETION_ROUTES,
    EMBED_ROUTES,
    HUB_TASKS,
    POLICIES,
    RERANK_ROUTES,
    ROUTES_BY_TASK,
)
from hubgate.upstreams.engines.routes import TextRoute
from hubgate.upstreams.http.messages import HttpClient
from hubgate.upstreams.hub.client import HubClient
from hubgate.upstreams.hub.providers import choose_provider
from hubgate.upstreams.server import Server
from hubgate.upstreams.server_models import ServerGenerator, ServerUpstream

_REFUSALS_OF_THE_MODEL = frozenset({Cause.MODEL_NOT_FOUND, Cause.GATED_MODEL, Cause.INVALID_REQUEST})


class RouterSource:
    """Opens hosted models; all share one client.

    Args:
        client: sends the requests; closed by its owner.
        hub: reports who serves a model.
        url: of the router.
    """

    def __init__(self, client: HttpClient, hub: HubClient, url: str) -> None:
        self._client = client
        self._hub = hub
        self._url = url

    async def detect(self, target: Target) -> Facts:
        """Who serves the endpoint's model, as the Hub reports; without the Hub, the operator's settings count.

        Raises:
            InvalidEndpoint: no provider serves it, or not the named one, or for another task.
            UpstreamError: the Hub is unavailable, and the operator names no provider.
        """
        endpoint = target.endpoint
        if endpoint.task not in HUB_TASKS:
            raise InvalidEndpoint(
                f"No Inference Provider supports {endpoint.task}.",
                remedy="Run the model on an Inference Endpoint.",
                cause=Cause.NOT_SERVED,
            )
        try:
            card = await self._hub.model(endpoint.model or "", target.first_token)
        except HubgateError as error:
            if error.cause in _REFUSALS_OF_THE_MODEL:
                raise
            return _facts_without_hub(endpoint, error)
        return _facts(endpoint, card)

    def open(self, target: Target) -> ServerUpstream:
        """The upstream of an endpoint whose facts are known.

        Raises:
            InvalidEndpoint: its provider is not known to serve the task.
        """
        endpoint, facts = target.endpoint, target.endpoint.facts
        provider, model = facts.provider or "", facts.provider_model or endpoint.model or ""
        if provider not in ROUTES_BY_TASK.get(endpoint.task, {}):
            raise InvalidEndpoint(
                f"Endpoint [{endpoint.name}] is not known to be served by any provider.",
                remedy="Register it again, so that hubgate looks up who serves its model.",
                cause=Cause.NOT_SERVED,
            )
        routes: dict[type, TextRoute] = {}
        if embed := EMBED_ROUTES.get(provider):
            routes[Embed] = replace(embed, path=embed.path.format(model=model))
        if rerank := RERANK_ROUTES.get(provider):
            route = replace(rerank, path=rerank.path.format(model=model))
            routes[Rerank] = route.for_model(model, facts.raw_scores)
        return ServerUpstream(self._server(target), routes, model, facts.dimensions)

    def open_generator(self, target: Target) -> ServerGenerator:
        """The generator of an endpoint whose facts are known."""
        endpoint, facts = target.endpoint, target.endpoint.facts
        suffix = "" if endpoint.provider in {None, AUTO} else f":{endpoint.provider}"
        routes: dict[type[Chat | Complete], GenerationRoute] = {
            Chat: replace(CHAT_ROUTE, model=f"{endpoint.model}{suffix}")
        }
        complete = COMPLETION_ROUTES.get(facts.provider or "")
        if complete is not None and facts.completes is not False:
            model = facts.provider_model or endpoint.model or ""
            routes[Complete] = replace(complete, path=complete.path.format(model=model), model=model)
        return ServerGenerator(self._server(target), routes, endpoint.model)

    async def close(self) -> None:
        """Does nothing: the connections are shared."""

    def _server(self, target: Target) -> Server:
        return Server(target, self._client, base=self._url)


def _facts(endpoint: Endpoint, card: ModelCard) -> Facts:
    chosen, chats, completes = choose_provider(endpoint, card)
    generates = endpoint.task in GENERATION_TASKS
    return Facts(
        engine=Engine.PROVIDER,
        model=card.name,
        revision=card.revision,
        max_input_tokens=card.max_input_tokens,
        provider=chosen.provider if chosen else None,
        provider_model=chosen.provider_model if chosen else None,
        chats=chats if generates else None,
        completes=completes if generates else None,
    )


def _facts_without_hub(endpoint: Endpoint, error: HubgateError) -> Facts:
    """For chat the router finds the provider; for other tasks the operator must have named one."""
    named = endpoint.provider if endpoint.provider not in {None, AUTO, *POLICIES} else None
    if endpoint.task is not Task.CHAT_COMPLETION and named not in ROUTES_BY_TASK[endpoint.task]:
        raise error
    warning = f"The Hub did not report who serves the model: {error.message} The endpoint's settings are used as they are."
    return Facts(
        engine=Engine.PROVIDER,
        model=endpoint.model,
        provider=named,
        provider_model=endpoint.model if named else None,
        chats=True if endpoint.task is Task.CHAT_COMPLETION else None,
        completes=endpoint.task is Task.COMPLETION if endpoint.task in GENERATION_TASKS else None,
        warnings=(warning,),
    )
