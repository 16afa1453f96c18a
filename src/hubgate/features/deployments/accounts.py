"""The token and the namespace of a request that manages Inference Endpoints, and what a namespace may cost an hour."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from hubgate.domain.errors import Cause, InUse, InvalidRequest, NotPermitted, StoreFailed
from hubgate.domain.hub import HubUser
from hubgate.domain.ports import Hub
from hubgate.domain.secret import Secret
from hubgate.features.deployments.fit import cost_at_most, hardware_of
from hubgate.features.deployments.hub import InferenceEndpoints
from hubgate.service.registry.connections import Connections
from hubgate.store.cluster.leases import SqlLeases


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
            NotFound: the connection does not exist.
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


_LEASE_SECONDS = 60.0
"""Longer than the requests take for which it is held. A process that dies meanwhile keeps others waiting for so long."""
_PATIENCE_SECONDS = 75.0
_PAUSE_SECONDS = 0.2


class Budget:
    """Refuses what could cost more than the limit.

    Args:
        api: of Inference Endpoints.
        limit: US dollars an hour for all Inference Endpoints of a namespace at their max replicas; `None`: none.
        leases: keep the gateways of a database from spending at the same time.
    """

    def __init__(self, api: InferenceEndpoints, limit: float | None, leases: SqlLeases) -> None:
        self._api = api
        self._limit = limit
        self._leases = leases
        self._spending = asyncio.Lock()

    @asynccontextmanager
    async def spending(
        self, namespace: str, name: str, token: Secret, after: float | None
    ) -> AsyncIterator[None]:
        """Check what an act would make an Inference Endpoint cost at most, and keep other acts out until it is done.

        Acts at other gateways, too: what one has sent, the next one sees in Hugging Face's list.

        Raises:
            NotPermitted: all of the namespace together could cost more than the limit, or a price is unknown.
            InUse: another gateway does not finish its own act.
            StoreFailed: the database cannot be used.
        """
        if self._limit is None:
            yield
            return
        async with self._spending, self._leased(namespace) as renew:
            await self._check(namespace, name, token, after, self._limit)
            await renew()
            yield

    @asynccontextmanager
    async def _leased(self, namespace: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Have the lease of a namespace. What is yielded renews it."""
        name, patience = f"spending {namespace}", _PATIENCE_SECONDS

        async def renew() -> None:
            if await self._leases.acquire(name, _LEASE_SECONDS) is None:
                raise InUse(
                    f"Another gateway is changing Inference Endpoints of [{namespace}].",
                    remedy="Nothing was changed. Try again in a minute.",
                )

        while patience > 0 and await self._leases.acquire(name, _LEASE_SECONDS) is None:
            await asyncio.sleep(_PAUSE_SECONDS)
            patience -= _PAUSE_SECONDS
        await renew()
        try:
            yield renew
        finally:
            with contextlib.suppress(StoreFailed):  # then it lapses
                await self._leases.release(name)

    async def _check(
        self, namespace: str, name: str, token: Secret, after: float | None, limit: float
    ) -> None:
        hardware = await self._api.hardware(namespace, token)
        costs = {
            one.name: cost_at_most(one, hardware_of(one, hardware))
            for one in await self._api.list(namespace, token)
        } | {name: after}
        unknown = sorted(other for other, cost in costs.items() if cost is None)
        if unknown:
            raise NotPermitted(
                f"What the Inference Endpoints of [{namespace}] may cost cannot be computed: Hugging Face lists no "
                f"price for {', '.join(unknown)}.",
                remedy="Pause or delete these, or unset HUBGATE_MAX_DOLLARS_PER_HOUR.",
                cause=Cause.OVER_BUDGET,
            )
        total = sum(cost or 0.0 for cost in costs.values())
        if total > limit + 1e-9:
            raise NotPermitted(
                f"The Inference Endpoints of [{namespace}] could cost ${total:g} an hour with [{name}], at their max "
                f"replicas. The limit is ${limit:g}.",
                remedy="Pause or shrink others, or raise HUBGATE_MAX_DOLLARS_PER_HOUR.",
                cause=Cause.OVER_BUDGET,
            )
