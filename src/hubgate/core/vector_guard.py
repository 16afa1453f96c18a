"""Checking every vector before it is used or cached."""

from __future__ import annotations

import re

from hubgate.core import vectors
from hubgate.core.errors import wrong_count
from hubgate.domain.calls import Call, Embed, Encoding, Result, Vectors
from hubgate.domain.errors import Cause, UpstreamUnreadable
from hubgate.domain.ports import Handler

_JSON_ZEROS = re.compile(rb"(?:[\s\[\],.0-]|[eE][+-]?\d+)*")
_LAST_OF_ZERO = b"0 \t\r\n"
"""Before the bracket at the end of a JSON vector of zeros that has no exponent there."""
_EXPONENTS = b"eE"
_F32_ZEROS = re.compile(rb"(?:\0\0\0[\0\x80])*", re.DOTALL)
_F32_ZERO = b"\0\0\0"
"""How 0.0 and -0.0 begin."""


class VectorGuard:
    """A pipeline step that rejects results without one vector a text, of the right dimensions, finite and not zero.

    Another size is refused with `Cause.DIMENSIONS_CHANGED`: either this text makes the server fail, or another model
    runs there. Only a known text shows which.

    Args:
        handler: of an untrusted server.
        dimensions: of the registered model; `None` if unknown.
        allows_zeros: whether a vector of zeros is a result, as in a comparison of models.
    """

    def __init__(self, handler: Handler, *, dimensions: int | None, allows_zeros: bool = False) -> None:
        self._handler = handler
        self._dimensions = dimensions
        self._allows_zeros = allows_zeros

    async def __call__(self, call: Call) -> Result:
        """Check the vectors of a reply.

        Raises:
            UpstreamUnreadable: there is not one for each text, one has other dimensions, a number is not finite, or all
                numbers of one are zero.
        """
        result = await self._handler(call)
        check_vectors(call, result, dimensions=self._dimensions, allows_zeros=self._allows_zeros)
        return result


def check_vectors(call: Call, result: Result, *, dimensions: int | None, allows_zeros: bool = False) -> None:
    """See `VectorGuard`."""
    if not isinstance(call, Embed) or not isinstance(result, Vectors):
        return
    if len(result.items) != len(call.texts):
        raise wrong_count(len(result.items), len(call.texts))
    if not allows_zeros:
        _check_not_zero(result)
    expected = call.dimensions or dimensions
    if result.dimensions is not None and result.dimensions == expected:
        return
    if result.dimensions is None:
        seen = {vectors.dimensions(item, result.encoding) for item in result.items}
    else:
        seen = {result.dimensions}
    if expected is None or seen == {expected}:
        return
    found = next(iter(seen - {expected}))
    raise _wrong_dimensions(found, expected) if call.dimensions else _other_dimensions(found, expected)


def _check_not_zero(result: Vectors) -> None:
    """Look at the beginning of each f32 vector and at the end of each JSON vector, so the numbers are not walked."""
    if result.encoding is Encoding.F32:
        for index, item in enumerate(result.items):
            if item.startswith(_F32_ZERO) and _F32_ZEROS.fullmatch(item):
                raise _zero(index)
        return
    for index, item in enumerate(result.items):
        end = item[-6:-1]
        is_candidate = end[-1] in _LAST_OF_ZERO or _EXPONENTS[0] in end or _EXPONENTS[1] in end
        if is_candidate and _JSON_ZEROS.fullmatch(item):
            raise _zero(index)


def _zero(index: int) -> UpstreamUnreadable:
    return UpstreamUnreadable(
        f"The model's server returned a vector of zeros for text {index}, which has no direction to compare.",
        remedy="Check what is special about this text, and look at the server's log. Vector databases refuse such vectors.",
    )


def _other_dimensions(found: int, registered: int) -> UpstreamUnreadable:
    return UpstreamUnreadable(
        f"The model's server returned vectors of {found} dimensions; the endpoint was registered with {registered}.",
        remedy="hubgate now checks whether another model runs there, and then refuses all calls. If not, the server "
        "fails on this text: look at its log.",
        cause=Cause.DIMENSIONS_CHANGED,
    )


def _wrong_dimensions(found: int, requested: int) -> UpstreamUnreadable:
    return UpstreamUnreadable(
        f"The model's server returned vectors of {found} dimensions where {requested} were requested.",
        remedy="This server or model cannot shorten vectors: omit `dimensions`.",
        cause=Cause.DIMENSIONS_CHANGED,
    )
