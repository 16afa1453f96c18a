"""Reply bodies: the pieces put together, and uncompressed where a server compresses without being asked."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from hubgate.core.off_loop import off_loop, total
from hubgate.upstreams.http.failures import TooLarge, Unpackable

PACKED = frozenset({"gzip", "x-gzip", "deflate"})
"""The content codings that are understood."""
_ZLIB_OR_GZIP = 47
"""zlib's `wbits` for: whichever of the two it is."""
_MAX_RATIO = 1032
"""How many bytes one compressed byte can become, by the format."""


async def assembled(pieces: Sequence[bytes], bound: int, *, packed: bool, whole: bool) -> bytes:
    """The body that came in these pieces. Large ones are put together off the event loop.

    Args:
        pieces: as they came.
        bound: bytes that the body may have; nothing is unpacked beyond it.
        packed: whether it is compressed.
        whole: whether all of it is wanted; otherwise its beginning is enough.

    Raises:
        TooLarge: it has more bytes.
        Unpackable: it is not compressed as it says, or not complete.
    """
    if packed:
        return await off_loop(min(total(pieces) * _MAX_RATIO, bound), _unpacked, pieces, bound, whole=whole)
    return pieces[0] if len(pieces) == 1 else await off_loop(total(pieces), b"".join, pieces)


def _unpacked(pieces: Sequence[bytes], bound: int, *, whole: bool) -> bytes:
    inflater = zlib.decompressobj(wbits=_ZLIB_OR_GZIP)
    try:
        body = inflater.decompress(b"".join(pieces), bound + 1)
    except zlib.error as error:
        raise Unpackable from error
    if whole and len(body) > bound:
        raise TooLarge
    if whole and not inflater.eof:
        raise Unpackable
    return body
