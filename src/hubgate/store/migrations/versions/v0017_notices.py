"""What gateways share about models' servers: on PostgreSQL only, in a table that need not survive a crash."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"

_TABLE = """
CREATE UNLOGGED TABLE rate_limit_notices (
  name text PRIMARY KEY, owner text NOT NULL, text text NOT NULL, until float8 NOT NULL
) WITH (fillfactor = 20)
"""


def upgrade() -> None:
    """Add the table."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_TABLE)
