"""Notices on a PostgreSQL server: `hubgate.domain.cluster_ports.NoticeBoard`."""

from __future__ import annotations

from collections.abc import Sequence

from hubgate.domain.cluster_ports import PostedNotice
from hubgate.store.cluster.postgres_link import PostgresLink

_NOW = "extract(epoch FROM clock_timestamp())::float8"
_HOLDS = f"(until > {_NOW} AND until <= {_NOW} + 600)"
"""One that holds longer is from before the clock was set."""
_READ = f"SELECT name, owner, text, until - {_NOW} FROM rate_limit_notices WHERE {_HOLDS}"  # noqa: S608 - constants
_POST = f"""
WITH posted AS (
  INSERT INTO rate_limit_notices AS old VALUES ($1, $2, $3, {_NOW} + $4) ON CONFLICT (name)
  DO UPDATE SET owner = excluded.owner, text = excluded.text, until = excluded.until
  WHERE $5 OR old.owner = excluded.owner OR NOT {_HOLDS.replace("until", "old.until")} RETURNING 1
)
SELECT CASE WHEN EXISTS (SELECT 1 FROM posted) THEN 0
  ELSE coalesce((SELECT until - {_NOW} FROM rate_limit_notices WHERE name = $1), 1) END
"""  # noqa: S608 - constants
_REMOVE = f"DELETE FROM rate_limit_notices WHERE name = $1 AND owner = $2 OR NOT {_HOLDS}"  # noqa: S608 - constants


class PostgresNotices:
    def __init__(self, link: PostgresLink) -> None:
        self._link = link

    async def read(self) -> Sequence[PostedNotice]:
        return [
            PostedNotice(name=name, owner=owner, text=text, seconds=float(seconds))
            for name, owner, text, seconds in await self._link.ask(_READ)
        ]

    async def post(self, notice: PostedNotice, *, replace: bool = True) -> float:
        values = (notice.name, notice.owner, notice.text, notice.seconds, replace)
        ((left,),) = await self._link.ask(_POST, *values)
        return float(left)

    async def remove(self, name: str, owner: str) -> None:
        await self._link.ask(_REMOVE, name, owner)
