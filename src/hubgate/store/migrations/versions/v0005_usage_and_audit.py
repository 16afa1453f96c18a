"""How much each endpoint was used by each key, and who changed what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_BUCKETS = 17


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "usage",
        sa.Column("span", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("texts", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("queue_seconds", sa.Double, nullable=False),
        sa.Column("cache_hits", sa.BigInteger, nullable=False),
        sa.Column("cache_misses", sa.BigInteger, nullable=False),
        sa.Column("upstream_requests", sa.BigInteger, nullable=False),
        sa.Column("saved_requests", sa.BigInteger, nullable=False),
        *(sa.Column(f"latency_{n}", sa.BigInteger, nullable=False) for n in range(_BUCKETS)),
        sa.PrimaryKeyConstraint("span", "at", "endpoint", "key", name="pk_usage"),
    )
    op.create_table(
        "usage_causes",
        sa.Column("span", sa.Integer, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("span", "at", "endpoint", "key", "cause", name="pk_usage_causes"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("verb", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("changes", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
