"""Connections: named access tokens that several endpoints can use. One may hold several tokens, one per line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from hubgate.core.off_loop import shielded
from hubgate.domain.endpoint import Endpoint, Target, check_name
from hubgate.domain.errors import InUse, InvalidEndpoint, InvalidRequest, NotFound
from hubgate.domain.records import Connection
from hubgate.domain.secret import Secret
from hubgate.domain.token_hosts import DEFAULT_HOSTS, parse_hosts
from hubgate.service.registry.live_endpoints import LiveEndpoint, LiveEndpoints
from hubgate.service.registry.token_guard import TokenGuard
from hubgate.store.connections import SqlConnections

_UNSENDABLE = "Invalid token: it is empty, or has spaces or characters that an HTTP header cannot carry."
_UNSENDABLE_REMEDY = (
    "Copy it from the settings of your Hugging Face account, or from your server. Write several one per line."
)


class Connections:
    """All connections, in memory and in the store."""

    def __init__(self, store: SqlConnections, live: LiveEndpoints, token_guard: TokenGuard) -> None:
        self._store = store
        self._live = live
        self._token_guard = token_guard
        self._connections: dict[str, Connection] = {}
        self.by_name: Mapping[str, Connection] = MappingProxyType(self._connections)
        """A live view."""
        self.lock = asyncio.Lock()
        """Held while a connection changes, or while an endpoint that may use one is stored."""

    async def load(self) -> None:
        """Read the stored connections."""
        self._connections.update({connection.name: connection for connection in await self._store.all()})

    async def follow(self) -> None:
        """Use connections as they are stored now, which other gateways may have changed."""
        async with self.lock:
            stored = {connection.name: connection for connection in await self._store.all()}
            self._connections.clear()
            self._connections.update(stored)
            for live in self._live:
                self.refresh(live)

    def all(self) -> Sequence[Connection]:
        """All connections, sorted by name."""
        return [self._connections[name] for name in sorted(self._connections)]

    def find(self, name: str) -> Connection:
        """Raises: NotFound."""
        if name not in self._connections:
            raise NotFound(
                f"No connection is named [{name[:200]}].", remedy="GET /api/connections lists them."
            )
        return self._connections[name]

    def users_of(self, name: str) -> list[str]:
        """The names of the endpoints that use a connection."""
        return [live.endpoint.name for live in self._live if live.endpoint.connection == name]

    def hosts_for(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The default hosts of a connection that is created together with this endpoint.

        Raises:
            InvalidEndpoint: its URL is invalid.
        """
        return self._token_guard.hosts_for(endpoint)

    async def resolve(self, endpoint: Endpoint, token: Secret | None) -> Target:
        """The endpoint with its own token, or its connection's.

        Raises:
            InvalidEndpoint: the token or the connection is invalid, or the token may not be sent to this endpoint.
        """
        if token is not None and not token.is_sendable:
            raise InvalidEndpoint(_UNSENDABLE, remedy=_UNSENDABLE_REMEDY)
        if endpoint.connection is None:
            return Target(endpoint, token)
        if token is not None:
            raise InvalidEndpoint(
                f"Endpoint [{endpoint.name}] has both a token and a connection.", remedy="Remove one of them."
            )
        connection = self._connections.get(endpoint.connection)
        if connection is None:
            raise InvalidEndpoint(
                f"No connection is named [{endpoint.connection[:200]}].",
                remedy="GET /api/connections lists them.",
            )
        await self._token_guard.check_connection(connection, endpoint)
        return Target(endpoint, connection.token)

    async def add(self, name: str, token: Secret, hosts: Iterable[str] = DEFAULT_HOSTS) -> Connection:
        """Store a token under a new name. The token is not tested.

        Args:
            name: the connection's name.
            token: one or several tokens, one per line.
            hosts: the hosts that may receive the token: see `hubgate.domain.token_hosts`.

        Raises:
            InvalidRequest: the name is taken or invalid, or the token or a host is invalid.
            StoreFailed: it cannot be stored.
        """
        try:
            check_name(name)
        except InvalidEndpoint as error:
            raise InvalidRequest(error.message.replace("inference_id", "name of a connection")) from None
        _check_token(token)
        added = Connection(name=name, token=token, created_at=time.time(), hosts=parse_hosts(hosts))
        async with self.lock:
            if name in self._connections:
                raise InvalidRequest(
                    f"A connection named [{name}] already exists.",
                    remedy="Replace its token, or choose another name.",
                )
            await shielded(self._save(added))
        return added

    async def replace(
        self, name: str, token: Secret | None = None, hosts: Iterable[str] | None = None
    ) -> Connection:
        """Replace a connection's token or hosts; `None` keeps them. Its endpoints use the new token at once.

        Raises:
            NotFound: no connection has this name.
            InvalidRequest: the token or a host is invalid, or a host is new and no token was given.
            InUse: an endpoint that uses it is at another host.
            StoreFailed: it cannot be stored.
        """
        if token is not None:
            _check_token(token)
        new_hosts = None if hosts is None else parse_hosts(hosts)
        async with self.lock:
            old = self.find(name)
            new = replace(old, token=token or old.token, hosts=new_hosts or old.hosts)
            if token is None:
                await self._token_guard.check_widened(old, new.hosts)
            uncovered = [
                user
                for user in self.users_of(name)
                if self._token_guard.uncovered(new.hosts, self._live.find(user).endpoint)
            ]
            if uncovered:
                raise InUse(
                    f"Connection [{name}] is used by endpoints at other hosts: {', '.join(uncovered)}.",
                    remedy="Add their hosts, or give those endpoints another connection or a token of their own.",
                )
            await shielded(self._save(new))
        return new

    async def remove(self, name: str) -> None:
        """Delete a connection.

        Raises:
            NotFound: no connection has this name.
            InUse: endpoints use it.
        """
        async with self.lock:
            self.find(name)
            if users := self.users_of(name):
                raise InUse(
                    f"Connection [{name}] is used by endpoint{'s' if users[1:] else ''} {', '.join(users)}.",
                    remedy="Give those another connection or a token of their own first.",
                )
            await shielded(self._delete(name))

    def refresh(self, live: LiveEndpoint) -> None:
        """Reopen an endpoint if its connection has a new token."""
        connection = self._connections.get(live.endpoint.connection or "")
        if connection and connection.token != live.target.token:
            target = replace(self._live.with_limit(live.target), token=connection.token)
            self._live.put(self._live.open(target, self._live.open_model(target)))

    async def _save(self, connection: Connection) -> None:
        await self._store.put(connection)
        self._connections[connection.name] = connection
        for user in self.users_of(connection.name):
            self.refresh(self._live.find(user))

    async def _delete(self, name: str) -> None:
        await self._store.remove(name)
        del self._connections[name]


def _check_token(token: Secret) -> None:
    if not token.is_sendable:
        raise InvalidRequest(_UNSENDABLE, remedy=_UNSENDABLE_REMEDY)
