"""Unpacks a reply's body as it comes, and no further than it will be read."""

from __future__ import annotations

import zlib

from hubgate.upstreams.failures import Unpackable

PACKED = frozenset({"gzip", "x-gzip", "deflate"})
"""The codings that `Unpacker` knows."""
_ZLIB_OR_GZIP = 47
"""zlib's word for: whichever of the two it is."""


class Unpacker:
    """Of one body."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(wbits=_ZLIB_OR_GZIP)

    @property
    def done(self) -> bool:
        """Whether the end has come."""
        return self._inflater.eof

    def unpack(self, data: bytes, most: int) -> bytes:
        """What a piece holds; `most` bytes, and what is beyond them is lost.

        Raises:
            Unpackable: it is not compressed as it says.
        """
        try:
            return self._inflater.decompress(data, most)
        except zlib.error as error:
            raise Unpackable from error
