"""The tables. The migrations build them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Double, LargeBinary, MetaData, String, Table, Text, false

REVISION = "0002"
"""The newest migration."""

metadata = MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s"},
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", String(32), primary_key=True),  # random and never changed: a sealed token is bound to it
    Column("name", Text, nullable=False, unique=True),
    Column(
        "settings", Text, nullable=False
    ),  # an Endpoint in JSON; text, so that one bad row spoils no other
    Column("token_key", String(8)),
    Column("token_box", LargeBinary),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("last_used_at", Double),
    Column("admin", Boolean, nullable=False),
    Column("default_endpoint", Text),
    Column("bulk", Boolean, nullable=False, server_default=false()),
    Column("input_type", String(32)),
)

notes = Table(
    "notes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
