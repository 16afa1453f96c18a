"""Endpoints whose chunking settings are the default of before have none: their chunks fit the model from now on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_DEFAULT = (
    '{"strategy":"sentence","max_chunk_size":250,"sentence_overlap":1,"overlap":null,"separators":null}'
)


def upgrade() -> None:
    """Change the settings, which are JSON."""
    endpoints = sa.table("endpoints", sa.column("settings", sa.Text))
    before, after = f'"chunking":{_DEFAULT}', '"chunking":null'
    op.execute(endpoints.update().values(settings=sa.func.replace(endpoints.c.settings, before, after)))
