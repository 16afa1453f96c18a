"""Shorter vectors from models that were trained for it (Matryoshka representation learning).

Such a model puts what matters most into the first numbers, so that its vectors may be truncated. A truncated vector of
any other model looks as good and finds worse. Each row of the table is a family of models, with the model card that it
is from. Other models are shortened if their own card names the sizes, or if an operator allows it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Coroutine
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from msgspec.structs import replace

from hubgate.core.models.names import base_name
from hubgate.core.off_loop import off_loop, total
from hubgate.core.vectors import f32, floats, in_encoding, l2_normalize
from hubgate.domain.calls import Call, Embed, Encoding, Result, Vectors
from hubgate.domain.errors import InvalidRequest
from hubgate.domain.ports import Handler

Sizes: TypeAlias = range | tuple[int, ...]
"""The dimensions that a vector may be truncated to: a whole range, or a few sizes."""

_F32_BYTES = 4
_EXAMPLES = "nomic-embed-text-v1.5, Qwen3-Embedding or EmbeddingGemma"


class _Row(NamedTuple):
    pattern: str
    """Matches the whole name as `base_name` returns it: a fine-tune may have lost the property."""
    sizes: Sizes
    card: str
    """The repository of the model card."""
    centered: bool = False
    """Whether the card subtracts the mean of its numbers from a vector before it truncates it."""


_TABLE = (
    _Row(r"nomic-embed-text-v1\.5", range(64, 768), "nomic-ai/nomic-embed-text-v1.5", centered=True),
    _Row(r"nomic-embed-text-v2-moe", range(256, 768), "nomic-ai/nomic-embed-text-v2-moe"),
    _Row(r"modernbert-embed-base", (256,), "nomic-ai/modernbert-embed-base"),
    _Row(r"mxbai-embed-large-v1", (512,), "mixedbread-ai/mxbai-embed-large-v1"),
    _Row(r"snowflake-arctic-embed-m-v1\.5", (256,), "Snowflake/snowflake-arctic-embed-m-v1.5"),
    _Row(r"snowflake-arctic-embed-[ml]-v2\.0", (256,), "Snowflake/snowflake-arctic-embed-l-v2.0"),
    _Row(r"gte-multilingual-base", range(128, 768), "Alibaba-NLP/gte-multilingual-base"),
    _Row(r"qwen3-embedding-(0\.6b|4b|8b)", range(32, 4096), "Qwen/Qwen3-Embedding-8B"),
    _Row(r"embeddinggemma-300m", (128, 256, 512), "google/embeddinggemma-300m"),
    _Row(r"embeddinggemma-2", (128, 256, 512), "google/embeddinggemma-2"),
    _Row(r"jina-embeddings-v3", (32, 64, 128, 256, 512, 768), "jinaai/jina-embeddings-v3"),
    _Row(r"jina-embeddings-v5-text-(small|nano)(-(retrieval|text-matching|classification|clustering))?", (32, 64, 128, 256, 512, 768), "jinaai/jina-embeddings-v5-text-small"),
    _Row(r"granite-embedding-311m-multilingual-r2", (128, 256, 384, 512), "ibm-granite/granite-embedding-311m-multilingual-r2"),
)  # fmt: skip


class ShortenStep:
    """A pipeline step that truncates vectors to the dimensions of the call, if the model was trained for it.

    Full vectors are requested, so that one cached vector serves every size. Truncated ones are scaled to length 1
    again, unless the call requests vectors that are not normalized.

    Args:
        handler: returns full vectors.
        model: the Hub id or the name of the folder.
        dimensions: of a full vector; `None` if unknown, then the server decides.
        original: the Hub id of the model of which this is a copy.
        published: the sizes that the model's own card names, in order.
        smallest: the fewest dimensions that the operator allows, whatever else is known.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        model: str | None,
        dimensions: int | None,
        original: str | None = None,
        published: tuple[int, ...] = (),
        smallest: int | None = None,
    ) -> None:
        self._handler = handler
        self._model = model
        self._dimensions = dimensions
        self._sizes = shorter_sizes(
            model, dimensions or 0, original=original, published=published, smallest=smallest
        )
        row = _row(original) or _row(model)
        self._centered = row is not None and row.centered

    def __call__(self, call: Call) -> Coroutine[Any, Any, Result]:
        """Raises InvalidRequest: the model was not trained for shorter vectors, or not for this size."""
        if not isinstance(call, Embed) or call.dimensions is None or self._dimensions is None:
            return self._handler(call)
        return self._answer_shortened(call, call.dimensions)

    async def _answer_shortened(self, call: Embed, size: int) -> Result:
        if size != self._dimensions and size not in self._sizes:
            raise self._invalid_size(size)
        if size == self._dimensions:
            return await self._handler(replace(call, dimensions=None))
        result = await self._handler(replace(call, dimensions=None, encoding=Encoding.F32))
        if not isinstance(result, Vectors):
            return result
        return await off_loop(total(result.items), self._shorten, result, size, call.normalize)

    def _shorten(self, vectors: Vectors, size: int, normalize: bool | None) -> Vectors:
        whole = in_encoding(vectors, Encoding.F32)
        items = [self._truncate(item, size, normalize) for item in whole.items]
        return replace(whole, items=items, dimensions=size)

    def _truncate(self, item: bytes, size: int, normalize: bool | None) -> bytes:
        if self._centered:
            numbers = floats(item)
            mean = math.fsum(numbers) / len(numbers)
            item = f32([number - mean for number in numbers])
        short = item[: size * _F32_BYTES]
        return short if normalize is False else l2_normalize(short)

    def _invalid_size(self, size: int) -> InvalidRequest:
        model = f"[{self._model}]" if self._model else "the model"
        problem = f"[dimensions] cannot be {size}: {model} returns vectors of {self._dimensions} dimensions"
        if not self._sizes:
            return InvalidRequest(
                f"{problem} and is not known to be trained for shorter ones (Matryoshka). Truncated vectors of such a "
                "model give worse search results.",
                remedy=f"Omit [dimensions], or use a model that was trained for it, such as {_EXAMPLES}. If its card says "
                "that it was, an operator can set [min_dimensions] of the endpoint.",
            )
        return InvalidRequest(
            f"{problem}, which may be truncated to {_describe(self._sizes)}.",
            remedy="Use one of these sizes, or omit [dimensions].",
        )


def shorter_sizes(
    model: str | None,
    dimensions: int,
    *,
    original: str | None = None,
    published: tuple[int, ...] = (),
    smallest: int | None = None,
) -> Sizes:
    """The sizes that the vectors of a model may be truncated to; empty if it was not trained for it.

    For the arguments see `ShortenStep`.
    """
    if smallest is not None:
        return range(smallest, dimensions)
    row = _row(original) or _row(model)
    sizes = row.sizes if row else published
    if isinstance(sizes, range):
        return range(sizes.start, min(sizes.stop, dimensions))
    return tuple(size for size in sizes if size < dimensions)


@lru_cache(256)  # many endpoints run the same few models
def _row(model: str | None) -> _Row | None:
    name = base_name(model)
    return next((row for row in _TABLE if re.fullmatch(row.pattern, name)), None)


def _describe(sizes: Sizes) -> str:
    if isinstance(sizes, range):
        return f"any number of dimensions from {sizes.start} to {sizes.stop - 1}"
    return " or ".join(map(str, sizes))
