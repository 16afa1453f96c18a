"""Qdrant, by its HTTP API. Needs its client: the extra `[qdrant]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import NAMESPACE_URL, uuid5

import pyarrow as pa
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_client.models import Distance, PointStruct, VectorParams

from hubgate.domain.endpoint import Similarity
from hubgate.features.bulk.engine.rows import Id
from hubgate.features.bulk.formats.inputs import unusable_input
from hubgate.features.bulk.load.output import Shape
from hubgate.features.bulk.load.targets import (
    BatchRefused,
    Refused,
    Unavailable,
    check_dimensions,
    no_table,
    records,
    require_float,
    rows_within,
)

_DISTANCES = {
    Similarity.COSINE: Distance.COSINE,
    Similarity.DOT_PRODUCT: Distance.DOT,
    Similarity.L2_NORM: Distance.EUCLID,
}
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_NO_RIGHT = frozenset({401, 403})
_NOT_FOUND = 404


class QdrantTarget:
    """A collection with one vector per point; the fields are its payload, the id among them."""

    def __init__(self, url: str, collection: str, key: str | None) -> None:
        self._client = QdrantClient(url=url, api_key=key, timeout=60, check_compatibility=False)
        self._collection = collection
        self.rows_per_request = 1

    def prepare(self, shape: Shape, similarity: Similarity | None) -> None:
        require_float(shape, "Qdrant")
        self.rows_per_request = rows_within(2, shape, 500)
        with _errors():
            try:
                found = self._client.get_collection(self._collection)
            except UnexpectedResponse as error:
                if error.status_code != _NOT_FOUND:
                    raise
                if similarity is None:
                    raise no_table(self._collection) from None
                vectors = VectorParams(size=shape.dimensions, distance=_DISTANCES[similarity])
                self._client.create_collection(self._collection, vectors_config=vectors)
                return
        known = found.config.params.vectors
        if not isinstance(known, VectorParams):
            raise unusable_input(
                f"The collection [{self._collection}] has named vectors.",
                "Use one with a single vector, or create one with --create.",
            )
        check_dimensions(self._collection, known.size, shape)

    def upsert(self, batch: pa.Table) -> Sequence[Refused]:
        points = []
        for row in records(batch):
            vector = row.pop("embedding")
            points.append(PointStruct(id=point_id(row["id"]), vector=vector, payload=row))  # type: ignore[arg-type]
        with _errors():
            self._client.upsert(self._collection, points, wait=True)
        return ()

    def finish(self) -> None:
        """Qdrant builds its index by itself."""

    def close(self) -> None:
        self._client.close()


def point_id(row_id: Id) -> int | str:
    """The id of a point, which can be a positive number or a UUID: for all other ids, one made from them."""
    return row_id if isinstance(row_id, int) and row_id >= 0 else str(uuid5(NAMESPACE_URL, str(row_id)))


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except UnexpectedResponse as error:
        text = error.content.decode(errors="replace")[:300]
        if error.status_code in _BUSY:
            raise Unavailable(f"it answered {error.status_code}") from None
        if error.status_code in _NO_RIGHT:
            raise unusable_input(f"Qdrant refuses: {text}.", "Set HUBGATE_LOAD_KEY to its API key.") from None
        raise BatchRefused(text) from None
    except ResponseHandlingException as error:
        raise Unavailable(str(error.source)[:300]) from None
