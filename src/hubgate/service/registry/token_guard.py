"""Keeps stored tokens at the hosts they were given for. Attempts to send one elsewhere are in the audit log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import Cause, InvalidEndpoint, InvalidRequest
from hubgate.domain.ports import Sources
from hubgate.domain.records import Connection
from hubgate.domain.token_hosts import DEFAULT_HOSTS, HUGGING_FACE, is_covered
from hubgate.store.audit_log import SqlAudit


class TokenGuard:
    """An endpoint's own token stays at its current hosts, a connection's token at the connection's hosts."""

    def __init__(self, sources: Sources, audit: SqlAudit) -> None:
        self._sources = sources
        self._audit = audit

    async def check_own(self, old: Endpoint, new: Endpoint) -> None:
        """Check that an endpoint's stored token may be sent where its new settings lead.

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
                "Send the token again with this change.",
            )

    async def check_connection(self, connection: Connection, endpoint: Endpoint) -> None:
        """Check that a connection's token may be sent where an endpoint leads.

        Raises:
            InvalidEndpoint: the connection's hosts do not cover the endpoint's host or proxy.
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
        """Check that new hosts of a connection are covered by the hosts its token was given for.

        Raises:
            InvalidRequest: one is not.
        """
        allowed = self._expanded(connection.hosts)
        more = [host for host in hosts if host not in connection.hosts and not _within(host, allowed)]
        if more:
            await self._audit.record("token.refuse", connection.name, {"hosts": [None, more]})
            raise InvalidRequest(
                f"The token of connection [{connection.name}] was not given for {' or '.join(more)}.",
                remedy="Send the token again with the hosts.",
                cause=Cause.TOKEN_NEEDED,
            )

    async def record_diagnosis(self, endpoint: Endpoint) -> None:
        """Log which hosts a diagnosis contacts, with which connection's token."""
        hosts: list[str] = []
        with contextlib.suppress(InvalidEndpoint):  # the diagnosis reports it
            hosts += self._sources.token_route(endpoint)
        await self._audit.record("endpoint.diagnose", endpoint.name, _audit_changes(hosts, endpoint))

    def uncovered(self, hosts: Iterable[str], endpoint: Endpoint) -> list[str]:
        """The origins that an endpoint's token is sent to and that these hosts do not cover."""
        known = self._expanded(hosts)
        return [where for where in self._sources.token_route(endpoint) if not is_covered(where, known)]

    def hosts_for(self, endpoint: Endpoint) -> tuple[str, ...]:
        """The hosts for a new connection whose token is entered together with this endpoint."""
        return (
            tuple(self._sources.token_route(endpoint))
            if self.uncovered(DEFAULT_HOSTS, endpoint)
            else DEFAULT_HOSTS
        )

    def _expanded(self, hosts: Iterable[str]) -> list[str]:
        """The hosts, with `huggingface` expanded."""
        return [
            one for host in hosts for one in (self._sources.hugging_face if host == HUGGING_FACE else (host,))
        ]

    async def _refuse(self, endpoint: Endpoint, hosts: Sequence[str], message: str, remedy: str) -> NoReturn:
        await self._audit.record("token.refuse", endpoint.name, _audit_changes(hosts, endpoint))
        raise InvalidEndpoint(message, remedy=remedy, cause=Cause.TOKEN_NEEDED)


def _audit_changes(hosts: Sequence[str], endpoint: Endpoint) -> dict[str, list[Any]]:
    return {"hosts": [None, list(hosts)], "connection": [None, endpoint.connection]}


def _within(host: str, allowed: Iterable[str]) -> bool:
    return host != HUGGING_FACE and "*" not in host and is_covered(host, allowed)
