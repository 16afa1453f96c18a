"""Checking every vector before it is used or cached."""

from __future__ import annotations

from hubgate.core.errors import wrong_count
from hubgate.core.vectors import dimensions
from hubgate.domain.calls import Call, Embed, Result, Vectors
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
        if vectors.dimensions is None:
            seen = {dimensions(item, vectors.encoding) for item in vectors.items}
        else:
            seen = {vectors.dimensions}
        for found in seen:
            if expected is not None and found != expected:
                raise (
                    _wrong_dimensions(found, expected) if call.dimensions else _model_changed(found, expected)
                )


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
