"""What a key may: which endpoints it calls, how much in a minute, and until when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("keys", sa.Column("endpoints", sa.Text))
    op.add_column("keys", sa.Column("requests_per_minute", sa.Integer))
    op.add_column("keys", sa.Column("tokens_per_minute", sa.Integer))
    op.add_column("keys", sa.Column("expires_at", sa.Double))
