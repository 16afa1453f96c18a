"""Deployments as rows: the Inference Endpoints that hubgate created, what they cost, and what was seen of them last."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from hubgate.domain.deployment_ports import CostRow, Watched
from hubgate.domain.deployments import ManagedDeployment
from hubgate.domain.errors import InUse
from hubgate.domain.hub import DeploymentState
from hubgate.store.database import Database, Lock, insert_or_update
from hubgate.store.tables import deployment_costs, deployment_watch, deployments

_SETTINGS = msgspec.json.Decoder(ManagedDeployment)

_log = logging.getLogger(__name__)


class SqlDeployments:
    """`hubgate.domain.deployment_ports.DeploymentStore` on SQLAlchemy."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Sequence[ManagedDeployment]:
        """All deployments, oldest first. One that cannot be read is left out, and logged."""
        rows = select(deployments).order_by(deployments.c.started_at, deployments.c.id)
        found = await self._database.do(lambda c: [(row.id, row.settings) for row in c.execute(rows)])
        return [one for row_id, settings in found if (one := _read(row_id, settings)) is not None]

    async def add(self, deployment: ManagedDeployment) -> None:
        """Store a new deployment.

        Raises:
            InUse: its plan was carried out already.
        """

        def work(connection: Connection) -> None:
            row = {"id": deployment.id, "started_at": deployment.started_at, "settings": _json(deployment)}
            try:
                connection.execute(insert(deployments).values(row))
            except IntegrityError:
                raise InUse(
                    "This plan was carried out already.", remedy="Make a new plan to create another one."
                ) from None

        await self._database.do(work)

    async def save(self, deployment: ManagedDeployment) -> bool:
        """Replace the stored deployment of this id; returns whether it was still there."""
        is_it = deployments.c.id == deployment.id
        changed = update(deployments).where(is_it).values(settings=_json(deployment))
        return await self._database.do(lambda c: bool(c.execute(changed).rowcount))

    async def remove(self, deployment_id: str) -> None:
        await self._database.do(
            lambda c: c.execute(delete(deployments).where(deployments.c.id == deployment_id))
        )

    def leading(self) -> AbstractAsyncContextManager[None]:
        """Keeps other gateways of the database from following deployments. Raises: InUse: one is doing it."""
        return self._database.holding(Lock.DEPLOYMENTS, InUse("Another gateway follows the deployments."))


class SqlGuard:
    """`hubgate.domain.deployment_guard.GuardStore` on SQLAlchemy."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def watched(self) -> Mapping[str, Watched]:
        rows = await self._database.do(
            lambda c: [dict(row) for row in c.execute(select(deployment_watch)).mappings()]
        )
        found = [Watched(**{**row, "state": _state(row["state"])}) for row in rows]
        return {one.deployment: one for one in found}

    async def save(self, watched: Watched, costs: Sequence[CostRow]) -> None:
        def work(connection: Connection) -> None:
            values = {**asdict(watched), "state": watched.state.value}
            seen = insert_or_update(connection, deployment_watch).values(values)
            connection.execute(
                seen.on_conflict_do_update(index_elements=[deployment_watch.c.deployment], set_=values)
            )
            for row in costs:
                spent = insert_or_update(connection, deployment_costs).values(row._asdict())
                added = {
                    name: deployment_costs.c[name] + spent.excluded[name] for name in ("minutes", "dollars")
                }
                key = [deployment_costs.c.day, deployment_costs.c.deployment]
                connection.execute(spent.on_conflict_do_update(index_elements=key, set_=added))

        await self._database.do(work)

    async def forget(self, deployment: str) -> None:
        gone = delete(deployment_watch).where(deployment_watch.c.deployment == deployment)
        await self._database.do(lambda c: c.execute(gone))

    async def costs(self, first_day: int, last_day: int) -> Sequence[CostRow]:
        day, name = deployment_costs.c.day, deployment_costs.c.deployment
        rows = select(deployment_costs).where(day.between(first_day, last_day)).order_by(day, name)
        return await self._database.do(lambda c: [CostRow(**row) for row in c.execute(rows).mappings()])

    async def totals(self) -> Mapping[str, float]:
        name = deployment_costs.c.deployment
        sums = select(name, func.sum(deployment_costs.c.dollars)).group_by(name)
        return await self._database.do(lambda c: {row[0]: row[1] for row in c.execute(sums)})

    def guarding(self) -> AbstractAsyncContextManager[None]:
        """Keeps other gateways of the database from guarding. Raises: InUse: one is doing it."""
        return self._database.holding(Lock.GUARD, InUse("Another gateway guards the costs."))


def _json(deployment: ManagedDeployment) -> str:
    return msgspec.json.encode(deployment).decode()


def _read(row_id: str, settings: str) -> ManagedDeployment | None:
    try:
        return _SETTINGS.decode(settings)
    except msgspec.MsgspecError as error:
        _log.error("deployment %s is left out: its row cannot be read (%s)", row_id, error)
        return None


def _state(word: str) -> DeploymentState:
    return DeploymentState(word) if word in set(DeploymentState) else DeploymentState.UNKNOWN
