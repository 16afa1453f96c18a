"""Checking every vector before it is used or cached."""

from __future__ import annotations

from hubgate.core.errors import wrong_count
from hubgate.core.vectors import check_range, dimensions, is_finite, is_flat, not_a_number
from hubgate.domain.calls import Call, Embed, Encoding, Result, Vectors
from hubgate.domain.errors import Cause, EndpointChanged, UpstreamUnreadable
from hubgate.domain.ports import Handler


class VectorGuard:
    """A pipeline step that rejects results without one vector a text, of the right dimensions and of finite numbers.

    Args:
        handler: of an untrusted server.
        dimensions: of the registered model; `None` if unknown.
    """

    def __init__(self, handler: Handler, *, dimensions: int | None) -> None:
        self._handler = handler
        self._dimensions = dimensions

    async def __call__(self, call: Call) -> Result:
        """Check the vectors of a reply.

        Raises:
            EndpointChanged: the vectors have the dimensions of another model.
            UpstreamUnreadable: there is not one for each text, or a number is not finite.
        """
        result = await self._handler(call)
        if isinstance(call, Embed) and isinstance(result, Vectors):
            self._check(call, result)
        return result

    def _check(self, call: Embed, vectors: Vectors) -> None:
        if len(vectors.items) != len(call.texts):
            raise wrong_count(len(vectors.items), len(call.texts))
        expected = call.dimensions or self._dimensions
        seen = {vectors.dimensions} if vectors.dimensions is not None else _inspect(vectors)
        for found in seen:
            if expected is not None and found != expected:
                raise (
                    _wrong_dimensions(found, expected) if call.dimensions else _model_changed(found, expected)
                )


def _inspect(vectors: Vectors) -> set[int]:
    """The dimensions of the vectors.

    Raises:
        UpstreamUnreadable: a number is not finite.
    """
    for item in vectors.items:
        if not (is_finite(item) if vectors.encoding is Encoding.F32 else is_flat(item.strip())):
            raise not_a_number()
        if vectors.encoding is Encoding.JSON:
            check_range(item)
    return {dimensions(item, vectors.encoding) for item in vectors.items}


def _model_changed(found: int, registered: int) -> EndpointChanged:
    return EndpointChanged(
        f"The model's server returned vectors of {found} dimensions; the endpoint was registered with {registered}.",
        remedy="Another model runs there now. Vectors of two models cannot be compared: run the registered model again, "
        "or register the new one and re-embed all documents.",
    )


def _wrong_dimensions(found: int, requested: int) -> UpstreamUnreadable:
    return UpstreamUnreadable(
        f"The model's server returned vectors of {found} dimensions where {requested} were requested.",
        remedy="This server or model cannot shorten vectors: omit `dimensions`.",
        cause=Cause.DIMENSIONS_CHANGED,
    )
