"""The tables of the database, and how they are now: `schema` has their version.

Times are seconds since the epoch. A sealed token is two columns: `token_box` is the encrypted token, and `token_key` the
id of the secret key that opens it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)

NAMING = {"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s"}
metadata = MetaData(naming_convention=NAMING)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", String(32), primary_key=True),  # random, never changed: a sealed token is bound to it
    Column("name", Text, nullable=False, unique=True),
    # An Endpoint in JSON. Parsed by the application, so that one bad row does not fail the whole query.
    Column("settings", Text, nullable=False),
    Column("token_key", String(8)),
    Column("token_box", LargeBinary),
    Column("version", BigInteger, nullable=False, server_default="1"),  # counts the changes of this row
    Column("changed", Text),  # why calls are refused: another model is running
    Column("looked_at", Double),  # when a gateway that started last checked which model is running
    Column("limit_id", String(8)),  # which rate limit it has, whatever its numbers and its token are now
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),  # of the key, which is not stored
    Column("created_at", Double, nullable=False),
    Column("last_used_at", Double),
    Column("admin", Boolean, nullable=False),
    Column("default_endpoint", Text),
    Column("bulk", Boolean, nullable=False, server_default=false()),
    Column("input_type", String(32)),
    Column("endpoints", Text),  # a list of names in JSON; NULL for all
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("expires_at", Double),
)

connections = Table(
    "connections",
    metadata,
    Column("id", String(32), primary_key=True),  # as in endpoints
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("token_key", String(8), nullable=False),
    Column("token_box", LargeBinary, nullable=False),
    Column("hosts", Text, nullable=False),  # a list in JSON
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", Double, nullable=False),
    Column("who", Text, nullable=False),
    Column("verb", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("changes", Text, nullable=False),  # JSON
)

# Small values of the gateway itself, such as the requests sent under each rate limit.
notes = Table(
    "notes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# Files that every gateway of a shared database needs, such as tokenizers.
files = Table(
    "files",
    metadata,
    Column("name", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

# Values that the gateways of a shared database need for a limited time, such as sign-outs.
expiring_values = Table(
    "expiring_values",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("until", Double, nullable=False),  # on the clock of the database's server
)

# Files of OpenAI's API. The content is on disk, in the folder with this id.
# One row: the version of the change feed, which is also the lock under which changes get their versions.
feed = Table(
    "feed",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", BigInteger, nullable=False),
)

# What gateways of a shared database have to read again.
changes = Table(
    "changes",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("name", Text, nullable=False),
    Column("at", Double, nullable=False),
)

# The gateways that run on a shared database. Times are those of the database.
gateways = Table(
    "gateways",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", BigInteger, nullable=False),  # the newest change that it follows
    Column("state", String(32), nullable=False),
    Column("software", Text, nullable=False),
    Column("revision", String(32), nullable=False),
    Column("keys", Text, nullable=False),  # the ids of its secret keys, newest first, separated by spaces
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("endpoints", Text, nullable=False, server_default=""),  # their states in JSON
)

# Which gateway process may do what only one does at a time. Times are those of the database.
leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", String(32), nullable=False),
    Column("until", Double, nullable=False),
    Column("fence", BigInteger, nullable=False),  # grows with each new owner
)

# The version of the tables, and the oldest version whose hubgate works with them.
schema_versions = Table(
    "schema_versions",
    metadata,
    Column("part", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("oldest_able", Integer, nullable=False),
)
