"""Each gateway of a shared database reports the states of its endpoints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the column."""
    op.add_column("gateways", sa.Column("endpoints", sa.Text, nullable=False, server_default=""))
