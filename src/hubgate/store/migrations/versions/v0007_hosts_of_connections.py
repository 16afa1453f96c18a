"""The hosts that a connection's token may be sent to. Those in use are filled in when the gateway loads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column."""
    op.add_column("connections", sa.Column("hosts", sa.Text))
