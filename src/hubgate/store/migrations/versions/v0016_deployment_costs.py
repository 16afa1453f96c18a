"""Costs of Inference Endpoints by day, and what the cost guard saw of them last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "deployment_costs",
        sa.Column("day", sa.BigInteger, nullable=False),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("minutes", sa.Double, nullable=False),
        sa.Column("dollars", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("day", "deployment", name="pk_deployment_costs"),
    )
    op.create_table(
        "deployment_watch",
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("replicas", sa.Integer, nullable=False),
        sa.Column("price", sa.Double, nullable=False),
        sa.Column("up_since", sa.Double, nullable=False),
        sa.Column("paused_for", sa.String(16)),
        sa.Column("failing_since", sa.Double),
        sa.PrimaryKeyConstraint("deployment", name="pk_deployment_watch"),
    )
