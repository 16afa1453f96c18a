"""Keeps stored tokens at the hosts that they were given for; an attempt to send one elsewhere is in the audit log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import Cause, HubgateError, InvalidEndpoint, InvalidRequest
from hubgate.domain.ports import Sources
from hubgate.domain.records import AuditLog, Connection
from hubgate.domain.token_hosts import DEFAULT_HOSTS, HUGGING_FACE, is_covered


class TokenGuard:
    """An endpoint's own token goes where that endpoint's last one did, a connection's to the connection's hosts."""

    def __init__(self, sources: Sources, audit: AuditLog) -> None:
        self._sources = sources
        self._audit = audit

    async def check_own(self, old: Endpoint, new: Endpoint) -> None:
        """Refuse to send the stored token of an endpoint where its new settings lead.

        Raises:
            InvalidEndpoint: they lead to another host or proxy.
        """
        given_for = self._sources.token_route(old)
        elsewhere = [host for host in self._sources.token_route(new) if host not in given_for]
        if elsewhere:
            await self._refuse(
                new,
                elsewhere,
                f"The token of endpoint [{new.name}] was not given for {' or '.join(elsewhere)}.",
                "Send the token again together with this change.",
            )

    async def check_connection(self, connection: Connection, endpoint: Endpoint) -> None:
        """Refuse to send a connection's token where an endpoint leads.

        Raises:
            InvalidEndpoint: it leads to a host or proxy that is not one of the connection's.
        """
        elsewhere = self.uncovered(connection.hosts, endpoint)
        if elsewhere:
            await self._refuse(
                endpoint,
                elsewhere,
                f"The token of connection [{connection.name}] was not given for {' or '.join(elsewhere)}.",
                f"Store the token again with that host: hubgate connection replace {connection.name} --host …, or "
                "PATCH /api/connections with [token] and [hosts]. Or give the endpoint a token of its own.",
            )

    async def check_widened(self, connection: Connection, hosts: Sequence[str]) -> None:
        """Refuse to let a stored token go to more hosts than it was given for.

        Raises:
            InvalidRequest: it was not given for one of the hosts.
        """
        allowed = self._known(connection.hosts)
        more = [host for host in hosts if host not in connection.hosts and not _within(host, allowed)]
        if more:
            await self._audit.record("token.refuse", connection.name, {"hosts": [None, more]})
            raise InvalidRequest(
                f"The token of connection [{connection.name}] was not given for {' or '.join(more)}.",
                remedy="Send the token again together with the hosts.",
                cause=Cause.TOKEN_NEEDED,
            )

    async def note_diagnosis(self, endpoint: Endpoint) -> None:
        """Write down where a diagnosis goes, and whose token it takes along."""
        hosts: list[str] = []
        with contextlib.suppress(InvalidEndpoint):  # which the diagnosis tells
            hosts += self._sources.token_route(endpoint)
        await self._audit.record("endpoint.diagnose", endpoint.name, _told(hosts, endpoint))

    def uncovered(self, hosts: Iterable[str], endpoint: Endpoint) -> list[str]:
        """Where an endpoint's token is sent and these hosts do not cover."""
        known = self._known(hosts)
        return [where for where in self._sources.token_route(endpoint) if not is_covered(where, known)]

    def hosts_for(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The hosts of a connection whose token is entered together with this endpoint."""
        return (
            tuple(self._sources.token_route(endpoint))
            if self.uncovered(DEFAULT_HOSTS, endpoint)
            else DEFAULT_HOSTS
        )

    def adopted(self, connection: Connection, users: Iterable[Endpoint]) -> Connection:
        """A connection of an earlier version, with the hosts that its token is sent to now."""
        hosts: dict[str, None] = dict.fromkeys(DEFAULT_HOSTS)
        for endpoint in users:
            with contextlib.suppress(HubgateError):
                hosts |= dict.fromkeys(self.uncovered(DEFAULT_HOSTS, endpoint))
        return replace(connection, hosts=tuple(hosts))

    def _known(self, hosts: Iterable[str]) -> list[str]:
        """The hosts, with those of Hugging Face in place of the word."""
        return [
            one for host in hosts for one in (self._sources.hugging_face if host == HUGGING_FACE else (host,))
        ]

    async def _refuse(self, endpoint: Endpoint, hosts: Sequence[str], message: str, remedy: str) -> NoReturn:
        await self._audit.record("token.refuse", endpoint.name, _told(hosts, endpoint))
        raise InvalidEndpoint(message, remedy=remedy, cause=Cause.TOKEN_NEEDED)


def _told(hosts: Sequence[str], endpoint: Endpoint) -> dict[str, list[Any]]:
    """The changes of an audit line: where a token was to go, and whose."""
    return {"hosts": [None, list(hosts)], "connection": [None, endpoint.connection]}


def _within(host: str, allowed: Iterable[str]) -> bool:
    return host != HUGGING_FACE and "*" not in host and is_covered(host, allowed)
