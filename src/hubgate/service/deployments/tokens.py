"""The token and the namespace of a request that manages Inference Endpoints."""

from __future__ import annotations

from typing import NamedTuple

from hubgate.domain.errors import Cause, InvalidRequest, NotPermitted
from hubgate.domain.hub import HubUser
from hubgate.domain.ports import Hub
from hubgate.domain.secret import Secret
from hubgate.service.registry.connections import Connections


class Account(NamedTuple):
    """Who manages Inference Endpoints, and whose."""

    connection: str
    token: Secret
    namespace: str


class Owner(NamedTuple):
    """Whose token a connection has."""

    connection: str
    user: HubUser


class Accounts:
    """Finds the account of a request by the name of its connection."""

    def __init__(self, connections: Connections, hub: Hub) -> None:
        self._connections = connections
        self._hub = hub

    def token(self, connection: str) -> Secret | None:
        """A stored connection's token, if it exists and may be sent to Hugging Face."""
        found = self._connections.by_name.get(connection)
        return found.hub_token if found else None

    async def find(self, connection: str | None, namespace: str | None, *, manages: bool = False) -> Account:
        """The account of a request.

        Args:
            connection: the name of a connection; `None` if there is only one for Hugging Face.
            namespace: a user or an organisation; `None`: the token's owner.
            manages: whether the token needs the right to manage Inference Endpoints.

        Raises:
            InvalidRequest: no connection is named, and it is not clear which to use; or it has no usable token.
            NotFound: there is no such connection.
            NotPermitted: the token lacks the right.
        """
        name = connection or self._only()
        token = self._usable(name)
        if namespace and not manages:
            return Account(name, token, namespace)
        owner = await self.owner(name, manages=manages)
        return Account(name, token, namespace or owner.user.name)

    async def owner(self, connection: str | None, *, manages: bool = False) -> Owner:
        """Whose a token is, and what it may do. Arguments and errors as of `find`."""
        name = connection or self._only()
        user = await self._hub.whoami(self._usable(name))
        if manages:
            _require_right(user, name)
        return Owner(name, user)

    def _usable(self, connection: str) -> Secret:
        token = self._connections.find(connection).hub_token
        if token is None:
            raise InvalidRequest(
                f"The connection [{connection}] has no token for Hugging Face.",
                remedy="Add [huggingface] to its hosts, or use another connection.",
            )
        return token

    def _only(self) -> str:
        names = [one.name for one in self._connections.all() if one.hub_token is not None]
        if len(names) == 1:
            return names[0]
        if not names:
            raise InvalidRequest(
                "There is no connection with a token for Hugging Face.",
                remedy="Store one: `hubgate connection add NAME --ask-token`, or POST /api/connections.",
            )
        raise InvalidRequest(
            f"Several connections have a token for Hugging Face: {', '.join(names)}.",
            remedy="Name one as [connection].",
        )


def _require_right(user: HubUser, connection: str) -> None:
    if user.manages_endpoints is False:
        raise NotPermitted(
            f"The token of the connection [{connection}] may not manage Inference Endpoints.",
            remedy="Grant it the permission inference.endpoints.write at https://huggingface.co/settings/tokens.",
            cause=Cause.TOKEN_LACKS_SCOPE,
        )
