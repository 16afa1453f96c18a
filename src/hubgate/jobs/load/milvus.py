"""Milvus, or Milvus Lite in a file. Needs pymilvus: the extra `[milvus]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import (
    DataNotMatchException,
    MilvusException,
    MilvusUnavailableException,
    ParamError,
)

from hubgate.domain.endpoint import Similarity
from hubgate.jobs.inputs import unusable_input
from hubgate.jobs.load.output import Shape
from hubgate.jobs.load.targets import (
    BatchRefused,
    Refused,
    Unavailable,
    check_dimensions,
    no_table,
    records,
    require_float,
    rows_within,
)

_METRICS = {Similarity.COSINE: "COSINE", Similarity.DOT_PRODUCT: "IP", Similarity.L2_NORM: "L2"}
_MAX_ID_LENGTH = 1024


class MilvusTarget:
    """A collection whose primary key is `id`. Fields beside id and vector are dynamic fields."""

    def __init__(self, uri: str, collection: str, key: str | None) -> None:
        self._uri = uri
        self._key = key
        self._collection = collection
        self._client: MilvusClient | None = None
        self.rows_per_request = 1

    def prepare(self, shape: Shape, similarity: Similarity | None) -> None:
        require_float(shape, "Milvus")
        self.rows_per_request = rows_within(2, shape, 500)
        with self._connected() as client:
            if not client.has_collection(self._collection):
                if similarity is None:
                    raise no_table(self._collection)
                self._create(client, shape, similarity)
                return
            fields = {
                field["name"]: field for field in client.describe_collection(self._collection)["fields"]
            }
        if "embedding" not in fields or not fields.get("id", {}).get("is_primary"):
            raise unusable_input(
                f"The collection [{self._collection}] needs a primary key [id] and a vector field [embedding].",
                "Create another one with --create.",
            )
        check_dimensions(self._collection, int(fields["embedding"]["params"].get("dim", 0)), shape)

    def upsert(self, batch: pa.Table) -> Sequence[Refused]:
        with self._connected() as client:
            client.upsert(self._collection, records(batch))
        return ()

    def finish(self) -> None:
        with self._connected() as client:
            client.flush(self._collection)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _create(self, client: MilvusClient, shape: Shape, similarity: Similarity) -> None:
        schema = client.create_schema(enable_dynamic_field=True)
        if shape.has_text_ids:
            schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=_MAX_ID_LENGTH)
        else:
            schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=shape.dimensions)
        index = client.prepare_index_params()
        index.add_index("embedding", index_type="AUTOINDEX", metric_type=_METRICS[similarity])
        client.create_collection(self._collection, schema=schema, index_params=index)

    @contextmanager
    def _connected(self) -> Iterator[MilvusClient]:
        try:
            if self._client is None:
                self._client = MilvusClient(self._uri, token=self._key or "", timeout=60)
            yield self._client
        except (DataNotMatchException, ParamError) as error:
            raise BatchRefused(_message(error)) from None
        except MilvusUnavailableException as error:
            raise Unavailable(_message(error)) from None
        except MilvusException as error:
            if _is_about_data(error):
                raise BatchRefused(_message(error)) from None
            raise Unavailable(_message(error)) from None


def _is_about_data(error: MilvusException) -> bool:
    """Whether the request was wrong, by the codes of Milvus: 1100 to 1199 are of parameters."""
    return 1100 <= (error.code or 0) < 1200


def _message(error: MilvusException) -> str:
    return str(error.message).partition("\n")[0][:300].rstrip(".")
