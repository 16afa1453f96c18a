"""Aliases of endpoints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "aliases",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("moved_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_aliases"),
    )
