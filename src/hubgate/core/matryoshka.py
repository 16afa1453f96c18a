"""Shorter vectors from models that were trained for it (Matryoshka representation learning), by family.

Such a model packs what matters most into the first numbers, so that a vector may be cut there; a cut vector of any
other model looks as good and finds worse. A fact a row, from the model card that it names. A family that is not here
is not shortened.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import NamedTuple, TypeAlias

from hubgate.core.off_loop import off_loop, total
from hubgate.core.vectors import f32, floats, in_encoding, l2_normalize
from hubgate.domain.calls import Call, Embed, Encoding, Result, Vectors
from hubgate.domain.errors import InvalidRequest
from hubgate.domain.ports import Handler

Sizes: TypeAlias = range | tuple[int, ...]
"""The numbers of dimensions that a vector may be cut to: all of a range, or these alone."""

_F32_BYTES = 4
_EXAMPLES = "nomic-embed-text-v1.5, Qwen3-Embedding or EmbeddingGemma"


class _Row(NamedTuple):
    pattern: str
    """Matches all of the lower-case name, but for the ends in `_PACKAGING`."""
    sizes: Sizes
    card: str
    """The repository whose card says so."""
    centred: bool = False
    """Whether the card takes the mean of all its numbers from a vector before it cuts it."""


_TABLE = (
    _Row(r"nomic-embed-text-v1\.5", range(64, 768), "nomic-ai/nomic-embed-text-v1.5", centred=True),
    _Row(r"nomic-embed-text-v2-moe", range(256, 768), "nomic-ai/nomic-embed-text-v2-moe"),
    _Row(r"modernbert-embed-base", (256,), "nomic-ai/modernbert-embed-base"),
    _Row(r"mxbai-embed-large-v1", (512,), "mixedbread-ai/mxbai-embed-large-v1"),
    _Row(r"snowflake-arctic-embed-m-v1\.5", (256,), "Snowflake/snowflake-arctic-embed-m-v1.5"),
    _Row(r"snowflake-arctic-embed-[ml]-v2\.0", (256,), "Snowflake/snowflake-arctic-embed-l-v2.0"),
    _Row(r"gte-multilingual-base", range(128, 768), "Alibaba-NLP/gte-multilingual-base"),
    _Row(r"qwen3-embedding-(0\.6b|4b|8b)", range(32, 4096), "Qwen/Qwen3-Embedding-8B"),
    _Row(r"embeddinggemma-300m", (128, 256, 512), "google/embeddinggemma-300m"),
    _Row(r"jina-embeddings-v3", (32, 64, 128, 256, 512, 768), "jinaai/jina-embeddings-v3"),
)  # fmt: skip

# What repackaged weights append to the name. Other ends are fine-tunes, which may have lost the property.
_PACKAGING = (
    r"([-._](gguf|onnx|openvino|ov|mlx|awq|gptq|qat|fp8|fp16|bf16|f16|f32|int4|int8|[0-9]bit|i?q[0-9]\w*))*"
)


class ShortenStep:
    """An answer whose vectors have as many dimensions as a call asks for, if its model was trained for that.

    The model is asked for whole vectors, so that one remembered vector serves every size. The cut ones are scaled to
    length 1 again, unless the call wants vectors that are not normalised.

    Args:
        answer: what gives whole vectors.
        model: its Hub id or its folder's name.
        dimensions: those of a whole vector; `None` if they are not known, then the server decides.
    """

    def __init__(self, answer: Handler, *, model: str | None, dimensions: int | None) -> None:
        self._answer = answer
        self._model = model
        self._dimensions = dimensions
        self._sizes = shorter_sizes(model, dimensions or 0)
        row = _row(model)
        self._centred = row is not None and row.centred

    async def __call__(self, call: Call) -> Result:
        """Answer one call.

        Raises:
            InvalidRequest: the model was not trained to be shortened, or not to this size.
        """
        if not isinstance(call, Embed) or call.dimensions is None or self._dimensions is None:
            return await self._answer(call)
        size = call.dimensions
        if size != self._dimensions and size not in self._sizes:
            raise self._refusal(size)
        result = await self._answer(replace(call, dimensions=None))
        if not isinstance(result, Vectors) or size == self._dimensions:
            return result
        return await off_loop(total(result.items), self._short, result, size, call.normalize)

    def _short(self, vectors: Vectors, size: int, normalize: bool | None) -> Vectors:
        whole = in_encoding(vectors, Encoding.F32)
        items = [self._cut(item, size, normalize) for item in whole.items]
        return replace(whole, items=items, dimensions=size)

    def _cut(self, item: bytes, size: int, normalize: bool | None) -> bytes:
        if self._centred:
            numbers = floats(item)
            mean = math.fsum(numbers) / len(numbers)
            item = f32([number - mean for number in numbers])
        short = item[: size * _F32_BYTES]
        return short if normalize is False else l2_normalize(short)

    def _refusal(self, size: int) -> InvalidRequest:
        model = f"[{self._model}]" if self._model else "the model"
        has = f"[dimensions] cannot be {size}: {model} gives vectors of {self._dimensions} dimensions"
        if not self._sizes:
            return InvalidRequest(
                f"{has} and is not known to have been trained for shorter ones (Matryoshka); cut vectors of such a "
                "model find worse.",
                remedy=f"Leave [dimensions] out, or use a model that was trained for it, such as {_EXAMPLES}.",
            )
        return InvalidRequest(
            f"{has}, and was trained to be cut to {_spelled(self._sizes)}.",
            remedy="Ask for one of these, or leave [dimensions] out.",
        )


def shorter_sizes(model: str | None, dimensions: int) -> Sizes:
    """What the vectors of a model may be cut to; empty for one that was not trained for it.

    Args:
        model: its Hub id or its folder's name.
        dimensions: those of a whole vector.
    """
    row = _row(model)
    if row is None:
        return ()
    if isinstance(row.sizes, range):
        return range(row.sizes.start, min(row.sizes.stop, dimensions))
    return tuple(size for size in row.sizes if size < dimensions)


def _row(model: str | None) -> _Row | None:
    name = (model or "").rstrip("/").rsplit("/", 1)[-1].lower()
    return next((row for row in _TABLE if re.fullmatch(row.pattern + _PACKAGING, name)), None)


def _spelled(sizes: Sizes) -> str:
    if isinstance(sizes, range):
        return f"any number of dimensions from {sizes.start} to {sizes.stop - 1}"
    return " or ".join(map(str, sizes))
