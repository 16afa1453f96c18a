"""Leases of limits that hold at any moment: on PostgreSQL only, in a table that need not survive a crash."""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"

_TABLE = """
CREATE UNLOGGED TABLE rate_limit_leases (
  key text, gateway text COLLATE "C", has bigint NOT NULL, wants boolean NOT NULL, at bigint NOT NULL,
  number bigint NOT NULL, PRIMARY KEY (key, gateway)
) WITH (fillfactor = 20)
"""

# The same as `hubgate/store/valkey/lease.lua`; a test compares their answers. `moment` and `server` are for it.
_LEASE = """
CREATE FUNCTION hubgate_lease(
  lease_key text, me text, most bigint, holds bigint, is_busy boolean, known bigint, was_away boolean,
  question bigint, moment bigint DEFAULT NULL, server text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  lapsed CONSTANT bigint := 5000000; silent CONSTANT bigint := 3000000; dead CONSTANT bigint := 30000000;
  turn CONSTANT bigint := 2000000; this text := coalesce(server, pg_postmaster_start_time()::text);
  here bigint; age bigint; heard_now bigint; gateways bigint; taken bigint; held bigint; busy bigint; rank bigint;
  turns bigint := 0; granted bigint := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('hubgate lease ' || lease_key, 0));
  here := coalesce(moment, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
  PERFORM 1 FROM rate_limit_leases l WHERE l.key = lease_key AND l.gateway = me AND l.number > question;
  IF FOUND THEN RETURN -1; END IF;
  age := coalesce((SELECT here - s.since FROM rate_limit_server s WHERE s.id = 1 AND s.epoch = this), 0);
  SELECT count(*) FILTER (WHERE g.at >= here - silent), count(*) INTO heard_now, gateways
    FROM rate_limit_gateways g WHERE g.at BETWEEN here - dead AND here + 1000000;
  gateways := greatest(1, gateways);
  IF age < dead OR was_away THEN gateways := greatest(gateways, known); END IF;
  taken := greatest(0, gateways - greatest(1, heard_now)) * (most / gateways);
  DELETE FROM rate_limit_leases l WHERE l.key = lease_key AND l.gateway <> me AND abs(here - l.at) > lapsed;
  SELECT coalesce(sum(l.has), 0), count(*) FILTER (WHERE l.wants),
    count(*) FILTER (WHERE l.wants AND l.gateway < me COLLATE "C")
    INTO held, busy, rank FROM rate_limit_leases l WHERE l.key = lease_key AND l.gateway <> me;
  taken := taken + held;
  IF is_busy THEN
    busy := busy + 1;
    IF most < busy THEN turns := here / turn; END IF;
    granted := most / busy + CASE WHEN (rank + turns) % busy < most % busy THEN 1 ELSE 0 END;
    granted := greatest(0, least(granted, most - taken));
    IF age < lapsed AND gateways > 1 THEN granted := least(granted, holds); END IF;
  END IF;
  IF is_busy OR holds > 0 THEN
    INSERT INTO rate_limit_leases VALUES (lease_key, me, greatest(granted, holds), is_busy, here, question)
      ON CONFLICT (key, gateway) DO UPDATE SET has = excluded.has, wants = excluded.wants, at = excluded.at,
        number = excluded.number;
  ELSE
    DELETE FROM rate_limit_leases l WHERE l.key = lease_key AND l.gateway = me;
  END IF;
  RETURN granted;
END $$
"""


def upgrade() -> None:
    """Add the table and the function."""
    if op.get_bind().dialect.name == "postgresql":
        for statement in (_TABLE, _LEASE):
            op.execute(statement)
