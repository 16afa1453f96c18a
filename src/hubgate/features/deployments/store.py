"""Deployments as rows: the Inference Endpoints that hubgate created."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    Double,
    MetaData,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from hubgate.domain.errors import InUse
from hubgate.features.deployments.model import ManagedDeployment
from hubgate.store.backend import Lock
from hubgate.store.database import Database
from hubgate.store.schema.versions import Schema
from hubgate.store.tables import NAMING

metadata = MetaData(naming_convention=NAMING)
deployments = Table(
    "deployments",
    metadata,
    Column("id", String(32), primary_key=True),  # of its plan
    Column("started_at", Double, nullable=False),
    Column("settings", Text, nullable=False),  # a ManagedDeployment in JSON
)
SCHEMA = Schema(part="deployments", metadata=metadata)
_SETTINGS = msgspec.json.Decoder(ManagedDeployment)

_log = logging.getLogger(__name__)


class SqlDeployments:
    """Stored deployments. All methods raise `StoreFailed`."""

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


def _json(deployment: ManagedDeployment) -> str:
    return msgspec.json.encode(deployment).decode()


def _read(row_id: str, settings: str) -> ManagedDeployment | None:
    try:
        return _SETTINGS.decode(settings)
    except msgspec.MsgspecError as error:
        _log.error("deployment %s is left out: its row cannot be read (%s)", row_id, error)
        return None
