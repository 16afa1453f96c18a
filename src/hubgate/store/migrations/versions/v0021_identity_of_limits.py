"""The identity of an endpoint's rate limit, which stays when its numbers or its token change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the column."""
    op.add_column("endpoints", sa.Column("limit_id", sa.String(8)))
