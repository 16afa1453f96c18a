"""Limits of keys that gateways share: on PostgreSQL only, in a table that need not survive a crash."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"

_TABLE = """
CREATE UNLOGGED TABLE rate_limit_keys (
  key text, second bigint, requests bigint NOT NULL, tokens bigint NOT NULL, PRIMARY KEY (key, second)
) WITH (fillfactor = 50)
"""

# The same as `hubgate/store/valkey/minute.lua`; a test compares their answers. `at` is for it.
_MINUTE = """
CREATE FUNCTION hubgate_minute(
  gateway_key text, max_requests bigint, max_tokens bigint, spent bigint, at bigint DEFAULT NULL
) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
  here bigint; this_second bigint; frees bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('hubgate key ' || gateway_key, 0));
  here := coalesce(at, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
  this_second := here / 1000000;
  IF spent <> 0 THEN
    INSERT INTO rate_limit_keys AS k VALUES (gateway_key, this_second, 0, spent)
      ON CONFLICT (key, second) DO UPDATE SET tokens = k.tokens + spent;
    RETURN ARRAY[0, 0];
  END IF;
  -- Those in the future were counted before the clock was set back.
  DELETE FROM rate_limit_keys k
    WHERE k.key = gateway_key AND (k.second < this_second - 60 OR k.second > this_second + 1);
  IF max_tokens > 0 THEN
    SELECT min(second) INTO frees FROM (
      SELECT second, sum(tokens) OVER () AS total, sum(tokens) OVER (ORDER BY second) AS until_then
      FROM rate_limit_keys WHERE key = gateway_key) counts
      WHERE total >= max_tokens AND total - until_then < max_tokens;
    IF frees IS NOT NULL THEN RETURN ARRAY[2, (frees + 61) * 1000000 - here]; END IF;
  END IF;
  IF max_requests > 0 THEN
    SELECT min(second) INTO frees FROM (
      SELECT second, sum(requests) OVER () AS total, sum(requests) OVER (ORDER BY second) AS until_then
      FROM rate_limit_keys WHERE key = gateway_key) counts
      WHERE total >= max_requests AND total - until_then < max_requests;
    IF frees IS NOT NULL THEN RETURN ARRAY[1, (frees + 61) * 1000000 - here]; END IF;
    INSERT INTO rate_limit_keys AS k VALUES (gateway_key, this_second, 1, 0)
      ON CONFLICT (key, second) DO UPDATE SET requests = k.requests + 1;
  END IF;
  RETURN ARRAY[0, 0];
END $$
"""


def upgrade() -> None:
    """Add the table and the function."""
    if op.get_bind().dialect.name == "postgresql":
        for statement in (_TABLE, _MINUTE):
            op.execute(statement)
