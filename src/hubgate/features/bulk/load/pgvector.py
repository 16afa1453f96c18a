"""PostgreSQL with the extension pgvector. Needs psycopg: the extra `[pgvector]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import orjson
import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.conninfo import make_conninfo

from hubgate.domain.endpoint import Similarity
from hubgate.features.bulk.formats.inputs import unusable_input
from hubgate.features.bulk.load.output import Shape
from hubgate.features.bulk.load.targets import (
    BatchRefused,
    Refused,
    Unavailable,
    check_dimensions,
    json_vectors,
    no_table,
    require_float,
    rows_within,
)

_OPERATORS = {
    Similarity.COSINE: "vector_cosine_ops",
    Similarity.DOT_PRODUCT: "vector_ip_ops",
    Similarity.L2_NORM: "vector_l2_ops",
}
_MAX_INDEXED_DIMENSIONS = 2000
_VECTOR_DIMENSIONS = """
    SELECT a.attname, CASE WHEN t.typname = 'vector' THEN a.atttypmod END
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
"""


class PgvectorTarget:
    """A table with a primary key `id`, a column `embedding`, and one for each kept field."""

    def __init__(self, url: str, table: str, key: str | None) -> None:
        self._url = make_conninfo(url, connect_timeout=10, **({"password": key} if key else {}))
        self._name = table
        self._table = sql.Identifier(*table.split(".", 1))
        self._connection: psycopg.Connection | None = None
        self._index: Similarity | None = None
        self.rows_per_request = 1

    def prepare(self, shape: Shape, similarity: Similarity | None) -> None:
        require_float(shape, "PostgreSQL")
        self._shape = shape
        self.rows_per_request = rows_within(16, shape, 5_000)
        with self._errors(), self._connected() as connection:
            found = self._find(connection)
            if found is None:
                if similarity is None:
                    raise no_table(self._name)
                self._create(connection)
                found = self._find(connection)
        self._check(found or {})
        self._index = similarity

    def upsert(self, batch: pa.Table) -> Sequence[Refused]:
        names = [sql.Identifier(name) for name in batch.schema.names]
        columns = sql.SQL(", ").join(names)
        others = [name for name, field in zip(names, batch.schema, strict=True) if field.name != "id"]
        changes = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(name) for name in others)
        values = {
            field.name: [vector.decode() for vector in json_vectors(batch)]
            if field.name == "embedding"
            else _values(batch.column(field.name), field.type)
            for field in batch.schema
        }
        with self._errors(), self._connected() as connection, connection.cursor() as cursor:
            # The types of the table without its constraints, as it may have other columns that must not be null.
            cursor.execute(
                sql.SQL(
                    "CREATE TEMPORARY TABLE hubgate_load ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA"
                ).format(columns, self._table)
            )
            with cursor.copy(sql.SQL("COPY hubgate_load ({}) FROM STDIN").format(columns)) as copy:
                for row in zip(*values.values(), strict=True):
                    copy.write_row(row)
            cursor.execute(
                sql.SQL(
                    "INSERT INTO {0} ({1}) SELECT {1} FROM hubgate_load ON CONFLICT (id) DO UPDATE SET {2}"
                ).format(self._table, columns, changes)
            )
        return ()

    def finish(self) -> None:
        """Build the index, which takes less time after the rows than with them."""
        if self._index is None or self._shape.dimensions > _MAX_INDEXED_DIMENSIONS:
            return
        name = sql.Identifier(f"{self._name.rpartition('.')[2]}_embedding_idx"[-63:])
        with self._errors(), self._connected() as connection:
            connection.execute(
                sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (embedding {})").format(
                    name, self._table, sql.SQL(_OPERATORS[self._index])
                )
            )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _find(self, connection: psycopg.Connection) -> dict[str, int | None] | None:
        """The columns of the table, with the dimensions of those that are vectors; `None` if there is no table."""
        name = self._table.as_string(connection)
        (table,) = connection.execute("SELECT to_regclass(%s)::oid", (name,)).fetchone() or (None,)
        if table is None:
            return None
        return dict(connection.execute(_VECTOR_DIMENSIONS, (table,)).fetchall())

    def _create(self, connection: psycopg.Connection) -> None:
        columns = []
        for field in self._shape.schema:
            kind = (
                f"vector({self._shape.dimensions}) NOT NULL"
                if field.name == "embedding"
                else _sql_type(field.type)
            )
            key = " PRIMARY KEY" if field.name == "id" else ""
            columns.append(sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(kind + key)))
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(sql.SQL("CREATE TABLE {} ({})").format(self._table, sql.SQL(", ").join(columns)))

    def _check(self, found: dict[str, int | None]) -> None:
        for name in self._shape.schema.names:
            if name not in found:
                raise unusable_input(
                    f"The table [{self._name}] has no column [{name}].",
                    "Add the column, or run the job without this field.",
                )
        if (known := found["embedding"]) is None:
            raise unusable_input(
                f"The column [embedding] of [{self._name}] is not a vector.", "Change its type to vector."
            )
        if known > 0:  # -1: a vector of any length
            check_dimensions(self._name, known, self._shape)

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        """A transaction, on a new connection if the last one is broken."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._url)
        with self._connection.transaction():
            yield self._connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.errors.UndefinedObject, psycopg.errors.FeatureNotSupported) as error:
            raise unusable_input(
                f"PostgreSQL refuses: {_message(error)}.", "Install the extension pgvector."
            ) from None
        except psycopg.errors.InvalidColumnReference:
            raise unusable_input(
                f"The column [id] of [{self._name}] has no unique index.", "Make it the primary key."
            ) from None
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.InvalidAuthorizationSpecification,
        ) as error:
            raise unusable_input(f"PostgreSQL refuses: {_message(error)}.") from None
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise BatchRefused(_message(error)) from None
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise Unavailable(_message(error)) from None
        except psycopg.ProgrammingError as error:
            raise unusable_input(f"PostgreSQL refuses: {_message(error)}.") from None


def _sql_type(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind):
        return "bigint" if kind != pa.uint64() else "numeric"
    if types.is_floating(kind):
        return "double precision"
    if types.is_date(kind):
        return "date"
    if types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    return "jsonb" if types.is_nested(kind) else "text"


def _values(column: pa.ChunkedArray, kind: pa.DataType) -> list[object]:
    values: list[object] = column.to_pylist()
    if pa.types.is_nested(kind):
        return [None if value is None else orjson.dumps(value, default=str).decode() for value in values]
    return values


def _message(error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error).partition("\n")[0]
    return text.strip().rstrip(".")
