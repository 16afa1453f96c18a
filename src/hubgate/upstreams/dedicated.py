"""A model on a server of its own, by URL: an Inference Endpoint, or any server in `wire.dialects`."""

from __future__ import annotations

from hubgate.core.off_loop import off_loop
from hubgate.domain.calls import Call, Embed, Rerank, Result, SparseEmbed
from hubgate.domain.endpoint import Endpoint, Facts, Target
from hubgate.domain.errors import Cause, HubgateError, InvalidEndpoint, InvalidRequest
from hubgate.upstreams.engines.embedders import DIALECTS, embed_request, read_vectors, vectors_bound
from hubgate.upstreams.engines.generators import WRITERS
from hubgate.upstreams.engines.identify import identify
from hubgate.upstreams.engines.replies import bounds
from hubgate.upstreams.engines.rerankers import ranker_of, read_scores, rerank_request
from hubgate.upstreams.engines.sparse import SPARSE_ROUTES, read_sparse, sparse_request
from hubgate.upstreams.engines.tokenize import ROUTE, read_tokens, tokenize_request
from hubgate.upstreams.generators import ServerWriter
from hubgate.upstreams.http.messages import HttpClient
from hubgate.upstreams.hub.deployments import Deployments, match
from hubgate.upstreams.server import Server


class DedicatedUpstream:
    """One endpoint's server. One call is one request, so that a permit of the rate limit is worth one request."""

    def __init__(self, endpoint: Endpoint, server: Server) -> None:
        engine = endpoint.engine or endpoint.facts.engine
        if engine is None or engine not in DIALECTS:
            raise InvalidEndpoint(
                f"Endpoint [{endpoint.name}] is not known to run any server that hubgate speaks to.",
                remedy="Register it again, or choose its engine yourself.",
            )
        self._engine = engine
        self._server = server
        self._model = endpoint.facts.model or endpoint.model
        self._route = endpoint.facts.route
        self._dimensions = endpoint.facts.dimensions

    async def __call__(self, call: Call) -> Result:
        """Ask the server.

        Raises:
            UpstreamError: no reply, an error, or one that cannot be read.
            InvalidRequest: the call needs what this server does not do.
        """
        if isinstance(call, Embed):
            return await self._embed(call)
        if isinstance(call, Rerank):
            return await self._rerank(call)
        if isinstance(call, SparseEmbed):
            return await self._embed_sparse(call)
        if not DIALECTS[self._engine].tokenizes:
            raise InvalidRequest(
                "This endpoint's server cannot cut texts into tokens and tell where they stand.",
                remedy="TEI and local models can.",
            )
        request = tokenize_request(self._server.base + ROUTE, call)
        reply = await self._server.ask(request, call.context, bound=bounds.tokens(request))
        return await off_loop(len(reply.body), read_tokens, call, reply)

    async def _embed(self, call: Embed) -> Result:
        dialect = DIALECTS[self._engine]
        request = embed_request(dialect, self._url(dialect.route), self._model, call)
        bound = vectors_bound(dialect, call, self._dimensions)
        reply = await self._server.ask(request, call.context, bound=bound)
        return await off_loop(len(reply.body), read_vectors, dialect, call, reply)

    async def _rerank(self, call: Rerank) -> Result:
        ranker = ranker_of(self._engine, self._model)
        request = rerank_request(ranker, self._url(ranker.route), self._model, call)
        bound = bounds.scores(len(call.texts), request)
        reply = await self._server.ask(request, call.context, bound=bound)
        return await off_loop(len(reply.body), read_scores, ranker, call, reply)

    async def _embed_sparse(self, call: SparseEmbed) -> Result:
        route = SPARSE_ROUTES.get(self._engine)
        if route is None:
            raise InvalidRequest(
                "This endpoint's server makes no sparse vectors.",
                remedy="TEI with a SPLADE model does, and custom handlers may.",
                cause=Cause.WRONG_TASK,
            )
        request = sparse_request(self._engine, self._url(route), call)
        bound = bounds.sparse_vectors(len(call.texts))
        reply = await self._server.ask(request, call.context, bound=bound)
        return await off_loop(len(reply.body), read_sparse, self._engine, call, reply)

    async def close(self) -> None:
        """Nothing of its own: the connections are shared."""

    def _url(self, usual_route: str) -> str:
        return self._server.base + (usual_route if self._route is None else self._route)


class DedicatedSource:
    """Opens servers by their URL; all share one client."""

    def __init__(self, client: HttpClient, deployments: Deployments) -> None:
        self._client = client
        self._deployments = deployments

    async def detect(self, target: Target) -> Facts:
        """What runs at the URL: see `identify`."""
        return await identify(target, self._server(target), self._deployments)

    async def runs(self, target: Target) -> bool:
        """Whether Hugging Face says that it runs; nobody else tells of a server without asking it."""
        endpoint, token = target.endpoint, target.first_token
        if endpoint.namespace is None or endpoint.url is None or token is None:
            return False
        try:
            found = match(await self._deployments.list(endpoint.namespace, token), endpoint.url)
        except HubgateError:
            return False
        return found is not None and found.running

    def open(self, target: Target) -> DedicatedUpstream:
        """The upstream of an endpoint whose facts are known."""
        return DedicatedUpstream(target.endpoint, self._server(target))

    def open_generator(self, target: Target) -> ServerWriter:
        """The writer of an endpoint whose facts are known.

        Raises:
            InvalidEndpoint: its server does not write.
        """
        endpoint = target.endpoint
        engine = endpoint.engine or endpoint.facts.engine
        if engine is None or engine not in WRITERS:
            raise InvalidEndpoint(
                f"The server of endpoint [{endpoint.name}] is {engine or 'not known'}, which does not write texts.",
                remedy="Register the URL of a server whose model does, or choose its engine yourself.",
                cause=Cause.WRONG_TASK,
            )
        model = endpoint.facts.model or endpoint.model
        return ServerWriter(self._server(target), WRITERS[engine], model)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _server(self, target: Target) -> Server:
        return Server(target, self._client)
