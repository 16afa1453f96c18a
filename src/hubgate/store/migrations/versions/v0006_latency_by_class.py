"""Usage: finer latency buckets with exact extremes, bulk apart from interactive, cancelled apart from failed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_BUCKETS = 62


def upgrade() -> None:
    """Add the columns, and count the calls whose caller left as cancelled."""
    op.add_column("usage", sa.Column("cancelled", sa.BigInteger, nullable=False, server_default="0"))
    for kind in ("interactive", "bulk"):
        op.add_column("usage", sa.Column(f"{kind}_fastest", sa.Double))
        op.add_column("usage", sa.Column(f"{kind}_slowest", sa.Double))
        for n in range(_BUCKETS):
            column = sa.Column(f"{kind}_{n}", sa.BigInteger, nullable=False, server_default="0")
            op.add_column("usage", column)
    op.execute(
        "UPDATE usage SET cancelled = coalesce((SELECT c.requests FROM usage_causes AS c WHERE "
        "c.span = usage.span AND c.at = usage.at AND c.endpoint = usage.endpoint AND c.key = usage.key "
        "AND c.cause = 'client_left'), 0)"
    )
    op.execute("UPDATE usage SET errors = errors - cancelled WHERE cancelled > 0")
    op.execute("DELETE FROM usage_causes WHERE cause = 'client_left'")
