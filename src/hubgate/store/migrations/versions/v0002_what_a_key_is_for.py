"""What a key is for: whether its calls are bulk, and what its texts are when a client cannot say."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("keys", sa.Column("bulk", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("keys", sa.Column("input_type", sa.String(32)))
