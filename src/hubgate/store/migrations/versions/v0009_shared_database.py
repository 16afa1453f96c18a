"""Several gateways may share a database: versions of endpoints, shared files, and who works with these tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the column and the tables. The audit log of a server may outgrow 32 bits."""
    op.add_column("endpoints", sa.Column("version", sa.BigInteger, nullable=False, server_default="1"))
    op.create_table(
        "files",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_files"),
    )
    op.create_table(
        "schema",
        sa.Column("revision", sa.String(32), nullable=False),
        sa.Column("oldest_able", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_schema"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("audit", "id", type_=sa.BigInteger)
        op.execute("ALTER SEQUENCE audit_id_seq AS bigint")
