"""Checking every vector before anybody uses or keeps it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hubgate.core.packing.faults import wrong_count
from hubgate.core.vectors import dimensions, is_finite, json_to_f32, not_a_number
from hubgate.domain.calls import Embed, Encoding, Vectors
from hubgate.domain.errors import Cause, EndpointChanged, UpstreamUnreadable

if TYPE_CHECKING:
    from hubgate.domain.calls import Call, Result
    from hubgate.domain.ports import Answer

_NO_NUMBER = (b"u", b"l", b"N", b'"', b"{")
"""One of these bytes is in each of null, true, false, NaN, a text and an object."""
_LARGE_EXPONENT = re.compile(rb"e[^-]")


class Guarded:
    """Lets through only as many vectors as texts, of the registered dimensions, of finite numbers.

    Args:
        answer: what is not trusted.
        dimensions: those of the registered model; `None` if they are not known.
    """

    def __init__(self, answer: Answer, *, dimensions: int | None) -> None:
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
        for item in vectors.items:
            found = dimensions(item, vectors.encoding)
            if expected is not None and found != expected:
                raise _not_asked_for(found, expected) if call.dimensions else _changed(found, expected)
            if not (is_finite(item) if vectors.encoding is Encoding.F32 else _is_plain(item)):
                raise not_a_number()


def _is_plain(item: bytes) -> bool:
    """Whether what parses as JSON is a flat array of finite numbers, told without making floats of them.

    Only an exponent that is not negative can make a JSON number infinite; vectors hardly ever have one, and those that
    do are parsed.
    """
    if any(mark in item for mark in _NO_NUMBER) or item.find(b"[") != item.rfind(b"["):
        return False
    if b"E" in item or (b"e" in item and _LARGE_EXPONENT.search(item)):
        json_to_f32(item)
    return True


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
