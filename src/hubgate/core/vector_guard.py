"""Checking every vector before anybody uses or keeps it."""

from __future__ import annotations

from hubgate.core.errors import wrong_count
from hubgate.core.vectors import check_range, dimensions, is_finite, is_flat, not_a_number
from hubgate.domain.calls import Call, Embed, Encoding, Result, Vectors
from hubgate.domain.errors import Cause, EndpointChanged, UpstreamUnreadable
from hubgate.domain.ports import Handler


class VectorGuard:
    """Lets through only as many vectors as texts, of the registered dimensions, of finite numbers.

    Args:
        answer: what is not trusted.
        dimensions: those of the registered model; `None` if they are not known.
    """

    def __init__(self, answer: Handler, *, dimensions: int | None) -> None:
        self._answer = answer
        self._dimensions = dimensions

    async def __call__(self, call: Call) -> Result:
        """Answer one call.

        Raises:
            EndpointChanged: the vectors are of another model's dimensions.
            UpstreamUnreadable: they are not one a text, or hold what is no finite number.
        """
        result = await self._answer(call)
        if isinstance(call, Embed) and isinstance(result, Vectors):
            self._check(call, result)
        return result

    def _check(self, call: Embed, vectors: Vectors) -> None:
        if len(vectors.items) != len(call.texts):
            raise wrong_count(len(vectors.items), len(call.texts))
        expected = call.dimensions or self._dimensions
        seen = {vectors.dimensions} if vectors.dimensions is not None else _look_at(vectors)
        for found in seen:
            if expected is not None and found != expected:
                raise _not_asked_for(found, expected) if call.dimensions else _changed(found, expected)


def _look_at(vectors: Vectors) -> set[int]:
    """The dimensions of vectors that nobody has looked at; all their numbers are finite.

    Raises:
        UpstreamUnreadable: they are not.
    """
    for item in vectors.items:
        if not (is_finite(item) if vectors.encoding is Encoding.F32 else is_flat(item.strip())):
            raise not_a_number()
        if vectors.encoding is Encoding.JSON:
            check_range(item)
    return {dimensions(item, vectors.encoding) for item in vectors.items}


def _changed(found: int, registered: int) -> EndpointChanged:
    return EndpointChanged(
        f"The model's server returned vectors of {found} dimensions; the endpoint was registered with {registered}.",
        remedy="Another model runs there now. Vectors of two models cannot be compared: run the former model again, "
        "or register the new one and embed all documents anew.",
    )


def _not_asked_for(found: int, asked: int) -> UpstreamUnreadable:
    return UpstreamUnreadable(
        f"The model's server returned vectors of {found} dimensions where {asked} were asked for.",
        remedy="This server or model cannot shorten vectors: leave `dimensions` out.",
        cause=Cause.DIMENSIONS_CHANGED,
    )
