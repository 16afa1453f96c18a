"""Connections: stored tokens under names of their own, for endpoints that have none. One may hold several, one a line."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from hubgate.domain.endpoint import check_name
from hubgate.domain.errors import InUse, InvalidEndpoint, InvalidRequest, NotFound
from hubgate.domain.records import Connection
from hubgate.service.changing import Changing, to_its_end

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hubgate.domain.secret import Secret


class Connecting(Changing):
    """Connections are made, given another token, and removed."""

    def connections(self) -> Sequence[Connection]:
        """All of them, by name."""
        return [self._connections[name] for name in sorted(self._connections)]

    @property
    def stored_tokens(self) -> Mapping[str, Connection]:
        """The same by name, as they are at any time."""
        return MappingProxyType(self._connections)

    def connection(self, name: str) -> Connection:
        """The connection of this name.

        Raises:
            NotFound: there is none.
        """
        if name not in self._connections:
            raise NotFound(
                f"No connection is named [{name[:200]}].", remedy="GET /api/connections lists them."
            )
        return self._connections[name]

    def users_of_connection(self, name: str) -> list[str]:
        """The endpoints that use it, by name."""
        return [live.endpoint.name for live in self._live if live.endpoint.connection == name]

    async def connect(self, name: str, token: Secret) -> Connection:
        """Store a token under a new name. Nobody is asked whether it is a good one.

        Raises:
            InvalidRequest: the name is taken or no good name, or the token is no token.
            StoreFailed: it cannot be stored.
        """
        try:
            check_name(name)
        except InvalidEndpoint as error:
            raise InvalidRequest(error.message.replace("inference_id", "name of a connection")) from None
        _check(token)
        async with self._connecting:
            if name in self._connections:
                raise InvalidRequest(
                    f"A connection named [{name}] exists already.",
                    remedy="Replace its token, or choose another name.",
                )
            made = Connection(name=name, token=token, created_at=time.time())
            await to_its_end(self._keep(made))
        return made

    async def reconnect(self, name: str, token: Secret) -> Connection:
        """Replace a connection's token; the endpoints that use it use the new one at once.

        Raises:
            NotFound: no connection has this name.
            InvalidRequest: the token is no token.
            StoreFailed: it cannot be stored.
        """
        _check(token)
        async with self._connecting:
            made = Connection(name=name, token=token, created_at=self.connection(name).created_at)
            await to_its_end(self._keep(made))
        return made

    async def disconnect(self, name: str) -> None:
        """Forget a connection.

        Raises:
            NotFound: no connection has this name.
            InUse: endpoints use it.
        """
        async with self._connecting:
            self.connection(name)
            if users := self.users_of_connection(name):
                raise InUse(
                    f"Connection [{name}] is used by endpoint{'s' if users[1:] else ''} {', '.join(users)}.",
                    remedy="Give those another connection or a token of their own first.",
                )
            await to_its_end(self._drop(name))

    async def _keep(self, connection: Connection) -> None:
        await self._store.connections.put(connection)
        self._connections[connection.name] = connection
        for user in self.users_of_connection(connection.name):
            self._reopen(self._live.find(user))

    async def _drop(self, name: str) -> None:
        await self._store.connections.remove(name)
        del self._connections[name]


def _check(token: Secret) -> None:
    """Raises InvalidRequest if there is none in it, or one that no header can carry."""
    tokens = token.each()
    if not tokens or any(not "!" <= letter <= "~" for one in tokens for letter in one.reveal()):
        raise InvalidRequest(
            "This is no token: it is empty, or has spaces or letters that no HTTP header can carry.",
            remedy="Copy it from the settings of your Hugging Face account; several stand one a line.",
        )
