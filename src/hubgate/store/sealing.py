"""Tokens in rows, sealed. Endpoints and connections have the same columns."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, Table, select, update

from hubgate.domain.errors import StoreFailed
from hubgate.domain.secret import Secret
from hubgate.store.tables import connections, endpoints
from hubgate.store.vault import Sealed, Vault

_TABLES: Mapping[str, Table] = {"endpoint": endpoints, "connection": connections}

_log = logging.getLogger(__name__)


class TokenColumns:
    """`token_key` and `token_box`. Used in the database's thread."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def seal(self, token: Secret | None, row_id: str) -> dict[str, Any]:
        """The values of the columns for the row of this id."""
        if token is None:
            return {"token_key": None, "token_box": None}
        sealed = self._vault.seal(token, row_id)
        return {"token_key": sealed.key_id, "token_box": sealed.box}

    def open(self, row: Row[Any], kind: str = "endpoint") -> Secret | None:
        """The token of a row. One that cannot be opened is logged, and `None` is returned."""
        if row.token_box is None:
            return None
        try:
            return self._vault.open(Sealed(row.token_key, row.token_box), row.id)
        except StoreFailed as error:
            _log.error("%s %s has no usable token: %s", kind, row.name, error)
            return None

    def reseal(self, connection: Connection) -> int:
        """Re-seal every token that is not under the newest secret key; returns how many."""
        return sum(self._reseal(connection, kind, table) for kind, table in _TABLES.items())

    def rotate(self, connection: Connection) -> int:
        """Re-seal every token under a new key, or finish a rotation that was begun; returns how many.

        Raises:
            StoreFailed: a new key is needed, and the keys come from the environment.
        """
        resealed = self.reseal(connection)
        if not resealed:
            self._vault.rotate()
            resealed = self.reseal(connection)
        return resealed

    def _reseal(self, connection: Connection, kind: str, table: Table) -> int:
        resealed = 0
        stale = select(table).where(table.c.token_key != self._vault.newest)
        for row in connection.execute(stale).all():
            token = self.open(row, kind)
            if token is not None:
                values = self.seal(token, row.id)
                connection.execute(update(table).where(table.c.id == row.id).values(values))
                resealed += 1
        return resealed
