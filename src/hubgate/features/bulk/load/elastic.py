"""Elasticsearch, by its bulk API. Needs its client: the extra `[elasticsearch]`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from elasticsearch import (
    ApiError,
    AuthenticationException,
    AuthorizationException,
    Elasticsearch,
    NotFoundError,
    TransportError,
    UnsupportedProductError,
)
from elasticsearch.helpers import streaming_bulk

from hubgate.domain.endpoint import Similarity
from hubgate.features.bulk.formats.inputs import unusable_input
from hubgate.features.bulk.load.output import Shape
from hubgate.features.bulk.load.targets import (
    BatchRefused,
    Refused,
    Unavailable,
    check_dimensions,
    no_table,
    records,
    rows_within,
)

_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_RETRIES = 8


class ElasticTarget:
    """An index whose documents have the ids of the vectors."""

    def __init__(self, url: str, index: str, key: str | None) -> None:
        self._client = Elasticsearch(url, api_key=key, request_timeout=60)
        self._index = index
        self.rows_per_request = 1

    def prepare(self, shape: Shape, similarity: Similarity | None) -> None:
        self.rows_per_request = rows_within(8, shape, 1_000)
        with _errors():
            try:
                found = self._client.indices.get_mapping(index=self._index)
            except NotFoundError:
                if similarity is None:
                    raise no_table(self._index) from None
                self._client.indices.create(index=self._index, mappings=_mapping(shape, similarity))
                return
        for mapping in found.body.values():  # an alias has several indices
            known = mapping["mappings"].get("properties", {}).get("embedding", {})
            if known.get("type") != "dense_vector":
                raise unusable_input(
                    f"The index [{self._index}] has no dense_vector field [embedding].",
                    "Add it to the mapping, or create another index with --create.",
                )
            if "dims" in known:
                check_dimensions(self._index, known["dims"], shape)

    def upsert(self, batch: pa.Table) -> Sequence[Refused]:
        actions = [{"_index": self._index, "_id": str(row["id"]), "_source": row} for row in records(batch)]
        refused = []
        with _errors():
            for number, (is_stored, item) in enumerate(
                streaming_bulk(
                    self._client,
                    actions,
                    chunk_size=len(actions),
                    max_retries=_RETRIES,
                    initial_backoff=0.5,
                    max_backoff=30,
                    raise_on_error=False,
                )
            ):
                outcome = next(iter(item.values()))
                if is_stored:
                    continue
                if outcome["status"] == _TOO_MANY_REQUESTS or outcome["status"] >= _SERVER_ERROR:
                    raise Unavailable(_reason(outcome))
                refused.append(Refused(outcome.get("_id", actions[number]["_id"]), _reason(outcome)))
        return refused

    def finish(self) -> None:
        with _errors():
            self._client.indices.refresh(index=self._index)

    def close(self) -> None:
        self._client.close()


def _mapping(shape: Shape, similarity: Similarity) -> dict[str, Any]:
    """The id and the vector; Elasticsearch maps the other fields by their first values."""
    vector: dict[str, Any] = {
        "type": "dense_vector",
        "dims": shape.dimensions,
        "index": True,
        "similarity": similarity.value,
    }
    if shape.number_type != pa.float32():
        vector["element_type"] = "byte"
    properties: dict[str, Any] = {
        "id": {"type": "keyword" if shape.has_text_ids else "long"},
        "embedding": vector,
    }
    if "document_id" in shape.schema.names:
        properties["document_id"] = {"type": "keyword"}
    if "text" in shape.schema.names:
        properties["text"] = {"type": "text"}
    return {"properties": properties}


def _reason(outcome: dict[str, Any]) -> str:
    error = outcome.get("error")
    return str(error.get("reason", error) if isinstance(error, dict) else error)[:300]


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (AuthenticationException, AuthorizationException) as error:
        raise unusable_input(
            f"Elasticsearch refuses: {error.message}.", "Set HUBGATE_LOAD_KEY to an API key with the right."
        ) from None
    except UnsupportedProductError:
        raise unusable_input("The server is not Elasticsearch.") from None
    except ApiError as error:
        if error.status_code == _TOO_MANY_REQUESTS or error.status_code >= _SERVER_ERROR:
            raise Unavailable(f"it answered {error.status_code}") from None
        raise BatchRefused(str(error)[:300]) from None
    except TransportError as error:
        raise Unavailable(error.message) from None
