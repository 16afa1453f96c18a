"""A model on a server of its own, by URL: an Inference Endpoint, or any server in `wire.dialects`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubgate.domain.calls import Embed, Tokenize
from hubgate.domain.errors import InvalidEndpoint, InvalidRequest
from hubgate.upstreams.detect import detect
from hubgate.upstreams.server import Server
from hubgate.upstreams.wire.dialects import DIALECTS, embed_request, read_vectors
from hubgate.upstreams.wire.tokenizing import ROUTE, read_tokens, tokenize_request

if TYPE_CHECKING:
    from hubgate.domain.calls import Call, Result
    from hubgate.domain.endpoint import Endpoint, Facts
    from hubgate.domain.ports import Writer
    from hubgate.domain.secret import Secret
    from hubgate.upstreams.messages import HttpClient


class DedicatedUpstream:
    """One endpoint's server. One call is one request, so that a permit of the allowance is worth one request."""

    def __init__(self, endpoint: Endpoint, server: Server) -> None:
        engine = endpoint.engine or endpoint.facts.engine
        if engine is None or engine not in DIALECTS:
            raise InvalidEndpoint(
                f"Endpoint [{endpoint.name}] is not known to run any server that hubgate speaks to.",
                remedy="Register it again, or say which server it is in [engine].",
            )
        self._dialect = DIALECTS[engine]
        self._server = server
        self._model = endpoint.facts.model or endpoint.model
        route = endpoint.facts.route if endpoint.facts.route is not None else self._dialect.route
        self._embed_url = server.base + route
        self._tokenize_url = server.base + ROUTE

    async def __call__(self, call: Call) -> Result:
        """Ask the server.

        Raises:
            UpstreamError: no reply, an error, or one that cannot be read.
            InvalidRequest: the call needs what this server does not do.
        """
        if isinstance(call, Embed):
            request = embed_request(self._dialect, self._embed_url, self._model, call)
            return read_vectors(self._dialect, call, await self._server.ask(request))
        if not isinstance(call, Tokenize) or not self._dialect.tokenizes:
            raise InvalidRequest(
                "This endpoint's server cannot cut texts into tokens and tell where they stand.",
                remedy="TEI and local models can.",
            )
        return read_tokens(call, await self._server.ask(tokenize_request(self._tokenize_url, call)))

    async def close(self) -> None:
        """Nothing of its own: the connections are shared."""


class DedicatedSource:
    """Opens servers by their URL; all share one client."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def detect(self, endpoint: Endpoint, token: Secret | None) -> Facts:
        """What runs at the URL: see `detect`."""
        return await detect(endpoint, self._server(endpoint, token))

    def open(self, endpoint: Endpoint, token: Secret | None) -> DedicatedUpstream:
        """The upstream of an endpoint whose facts are known."""
        return DedicatedUpstream(endpoint, self._server(endpoint, token))

    def open_writer(self, endpoint: Endpoint, token: Secret | None) -> Writer:
        """The writer of an endpoint whose facts are known."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _server(self, endpoint: Endpoint, token: Secret | None) -> Server:
        return Server(endpoint.url or "", token, self._client)
