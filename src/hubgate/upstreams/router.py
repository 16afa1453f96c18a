"""Models hosted by Hugging Face's Inference Providers, behind its router; once the Hosted Inference API.

Who serves a model is asked of the Hub when an endpoint is registered, never on the way of a call. It stays with that
provider until it is accepted anew: two providers may give vectors of one model that cannot be compared.
"""

from __future__ import annotations

from dataclasses import replace

from hubgate.core.off_loop import off_loop
from hubgate.domain.calls import Call, Chat, Complete, Embed, Rerank, Result
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Engine, Facts, Target, Task
from hubgate.domain.errors import Cause, HubgateError, InvalidEndpoint, InvalidRequest
from hubgate.domain.hub import ModelCard
from hubgate.upstreams.engines.embedders import embed_request, read_vectors, vectors_bound
from hubgate.upstreams.engines.generators import Form
from hubgate.upstreams.engines.providers import AUTO, CHAT, COMPLETERS, EMBEDDERS, POLICIES, RANKERS, TABLES
from hubgate.upstreams.engines.replies import bounds
from hubgate.upstreams.engines.rerankers import read_scores, rerank_request
from hubgate.upstreams.generators import ServerWriter
from hubgate.upstreams.http.messages import HttpClient
from hubgate.upstreams.hub.client import HubClient
from hubgate.upstreams.hub.providers import serving
from hubgate.upstreams.server import Server


class RouterUpstream:
    """One model at one provider. One call is one request."""

    def __init__(self, endpoint: Endpoint, server: Server) -> None:
        self._provider = endpoint.facts.provider or ""
        self._model = endpoint.facts.provider_model or endpoint.model or ""
        self._dimensions = endpoint.facts.dimensions
        self._server = server
        if self._provider not in TABLES.get(endpoint.task, {}):
            raise InvalidEndpoint(
                f"Endpoint [{endpoint.name}] is not known to be served by any provider.",
                remedy="Register it again, so that the Hub is asked who serves its model.",
                cause=Cause.NOT_SERVED,
            )

    async def __call__(self, call: Call) -> Result:
        """Ask the provider.

        Raises:
            UpstreamError: no reply, an error, or one that cannot be read.
            InvalidRequest: the call needs what this provider does not do.
        """
        if isinstance(call, Embed) and self._provider in EMBEDDERS:
            dialect = EMBEDDERS[self._provider]
            request = embed_request(dialect, self._url(dialect.route), self._model, call)
            bound = vectors_bound(dialect, call, self._dimensions)
            reply = await self._server.ask(request, call.context, bound=bound)
            return await off_loop(len(reply.body), read_vectors, dialect, call, reply)
        if isinstance(call, Rerank) and self._provider in RANKERS:
            ranker = RANKERS[self._provider]
            request = rerank_request(ranker, self._url(ranker.route), self._model, call)
            bound = bounds.scores(len(call.texts), request)
            reply = await self._server.ask(request, call.context, bound=bound)
            return await off_loop(len(reply.body), read_scores, ranker, call, reply)
        raise InvalidRequest(
            f"The provider [{self._provider}] cannot do this.", remedy="TEI and local models may."
        )

    async def close(self) -> None:
        """Nothing of its own: the connections are shared."""

    def _url(self, route: str) -> str:
        return self._server.base + route.format(model=self._model)


class RouterSource:
    """Opens hosted models; all share one client.

    Args:
        client: sends the requests; closed by its owner.
        hub: tells who serves a model.
        url: of the router.
    """

    def __init__(self, client: HttpClient, hub: HubClient, url: str) -> None:
        self._client = client
        self._hub = hub
        self._url = url

    async def detect(self, target: Target) -> Facts:
        """Who serves the endpoint's model, as the Hub says; without the Hub, what the operator says is believed.

        Raises:
            InvalidEndpoint: nobody serves it, not the provider that is named, or another task.
            UpstreamError: the Hub cannot be asked, and the operator names no provider.
        """
        endpoint = target.endpoint
        if endpoint.task is Task.SPARSE_EMBEDDING:
            raise InvalidEndpoint(
                "No Inference Provider makes sparse vectors.",
                remedy="Run the model on an Inference Endpoint.",
                cause=Cause.NOT_SERVED,
            )
        try:
            card = await self._hub.model(endpoint.model or "", target.first_token)
        except HubgateError as error:
            if error.cause in {Cause.MODEL_NOT_FOUND, Cause.GATED_MODEL, Cause.INVALID_REQUEST}:
                raise
            return _believed(endpoint, error)
        return _facts(endpoint, card)

    def open(self, target: Target) -> RouterUpstream:
        """The upstream of an endpoint whose facts are known."""
        return RouterUpstream(target.endpoint, self._server(target))

    def open_generator(self, target: Target) -> ServerWriter:
        """The writer of an endpoint whose facts are known."""
        endpoint, facts = target.endpoint, target.endpoint.facts
        named = "" if endpoint.provider in {None, AUTO} else f":{endpoint.provider}"
        forms: dict[type[Chat | Complete], Form] = {Chat: replace(CHAT, model=f"{endpoint.model}{named}")}
        completer = COMPLETERS.get(facts.provider or "")
        if completer is not None and facts.completes is not False:
            model = facts.provider_model or endpoint.model or ""
            forms[Complete] = replace(completer, route=completer.route.format(model=model), model=model)
        return ServerWriter(self._server(target), forms, endpoint.model)

    async def close(self) -> None:
        """Nothing of its own: the connections are shared."""

    def _server(self, target: Target) -> Server:
        return Server(target, self._client, base=self._url)


def _facts(endpoint: Endpoint, card: ModelCard) -> Facts:
    chosen, chats, completes = serving(endpoint, card)
    writes = endpoint.task in GENERATION_TASKS
    return Facts(
        engine=Engine.PROVIDER,
        model=card.name,
        revision=card.revision,
        max_input_tokens=card.max_input_tokens,
        provider=chosen.provider if chosen else None,
        provider_model=chosen.provider_model if chosen else None,
        chats=chats if writes else None,
        completes=completes if writes else None,
    )


def _believed(endpoint: Endpoint, error: HubgateError) -> Facts:
    """Conversations need nobody's word, as the router finds their provider; else the operator must have named one."""
    named = endpoint.provider if endpoint.provider not in {None, AUTO, *POLICIES} else None
    if endpoint.task is not Task.CHAT_COMPLETION and named not in TABLES[endpoint.task]:
        raise error
    said = f"Who serves the model was not asked: {error.message} What the endpoint says of it is believed."
    return Facts(
        engine=Engine.PROVIDER,
        model=endpoint.model,
        provider=named,
        provider_model=endpoint.model if named else None,
        chats=True if endpoint.task is Task.CHAT_COMPLETION else None,
        completes=endpoint.task is Task.COMPLETION if endpoint.task in GENERATION_TASKS else None,
        warnings=(said,),
    )
