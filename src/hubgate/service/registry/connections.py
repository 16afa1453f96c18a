"""Connections: stored tokens under names of their own, for endpoints that have none. One may hold several, one a line."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from hubgate.domain.endpoint import Endpoint, check_name
from hubgate.domain.errors import InUse, InvalidEndpoint, InvalidRequest, NotFound
from hubgate.domain.records import Connection
from hubgate.domain.secret import Secret
from hubgate.domain.token_hosts import DEFAULT_HOSTS, parse_hosts
from hubgate.service.registry.changes import Changing, to_its_end
from hubgate.service.registry.opening import COPY_IT, UNSENDABLE


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

    async def connect(self, name: str, token: Secret, hosts: Iterable[str] = DEFAULT_HOSTS) -> Connection:
        """Store a token under a new name. Nobody is asked whether it is a good one.

        Args:
            name: of the connection.
            token: it, or several, one a line.
            hosts: where it may be sent: see `hubgate.domain.token_hosts`.

        Raises:
            InvalidRequest: the name is taken or no good name, or the token or a host cannot be used.
            StoreFailed: it cannot be stored.
        """
        try:
            check_name(name)
        except InvalidEndpoint as error:
            raise InvalidRequest(error.message.replace("inference_id", "name of a connection")) from None
        _check(token)
        made = Connection(name=name, token=token, created_at=time.time(), hosts=parse_hosts(hosts))
        async with self._connecting:
            if name in self._connections:
                raise InvalidRequest(
                    f"A connection named [{name}] exists already.",
                    remedy="Replace its token, or choose another name.",
                )
            await to_its_end(self._keep(made))
        return made

    async def reconnect(
        self, name: str, token: Secret | None = None, hosts: Iterable[str] | None = None
    ) -> Connection:
        """Replace a connection's token, or the hosts it may be sent to; the endpoints that use it follow at once.

        Args:
            name: of the connection.
            token: the new one; `None` keeps the old one, which goes to none but the hosts that it was given for.
            hosts: the new ones; `None` keeps the old ones.

        Raises:
            NotFound: no connection has this name.
            InvalidRequest: the token or a host cannot be used, or the old token was not given for it.
            InUse: an endpoint that uses it is at none of the hosts.
            StoreFailed: it cannot be stored.
        """
        if token is not None:
            _check(token)
        wanted = None if hosts is None else parse_hosts(hosts)
        async with self._connecting:
            old = self.connection(name)
            made = replace(old, token=token or old.token, hosts=wanted or old.hosts)
            if token is None:
                await self._token_guard.check_widened(old, made.hosts)
            left = [
                user
                for user in self.users_of_connection(name)
                if self._token_guard.uncovered(made.hosts, self._live.find(user).endpoint)
            ]
            if left:
                raise InUse(
                    f"Connection [{name}] is used by endpoints at other hosts: {', '.join(left)}.",
                    remedy="Name their hosts too, or give those endpoints another connection or a token of their own.",
                )
            await to_its_end(self._keep(made))
        return made

    def hosts_for(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The hosts of a connection whose token is entered together with this endpoint.

        Raises:
            InvalidEndpoint: its URL cannot be used.
        """
        return self._token_guard.hosts_for(endpoint)

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

    async def _load_connections(self, endpoints: Sequence[Endpoint]) -> None:
        """Read them; those that an earlier version stored get the hosts that these endpoints use them with."""
        for connection in await self._store.connections.all():
            if connection.hosts:
                self._connections[connection.name] = connection
                continue
            users = [endpoint for endpoint in endpoints if endpoint.connection == connection.name]
            await self._keep(self._token_guard.adopted(connection, users))

    async def _keep(self, connection: Connection) -> None:
        await self._store.connections.put(connection)
        self._connections[connection.name] = connection
        for user in self.users_of_connection(connection.name):
            self._reopen(self._live.find(user))

    async def _drop(self, name: str) -> None:
        await self._store.connections.remove(name)
        del self._connections[name]


def _check(token: Secret) -> None:
    """Raises InvalidRequest if it cannot be sent."""
    if not token.is_sendable:
        raise InvalidRequest(UNSENDABLE, remedy=COPY_IT)
