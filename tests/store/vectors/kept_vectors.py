"""Sample vectors, and helpers to store and find them on disk."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from scripted_upstream import fresh

from hubgate.domain.calls import CachedVector
from hubgate.store.vectors.disk import DiskVectorCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MIB = 1024 * 1024


@asynccontextmanager
async def opened(path: Path, max_bytes: int = 8 * MIB, **options: int) -> AsyncIterator[DiskVectorCache]:
    """The vector cache of a running gateway."""
    file = DiskVectorCache(path, max_bytes, **options)
    try:
        yield file
    finally:
        await file.close()


def key(number: int) -> bytes:
    """The cache key of a numbered vector."""
    return hashlib.sha256(number.to_bytes(8, "little")).digest()


def vector(number: int, dimensions: int = 384) -> CachedVector:
    """A vector that is unique to its number."""
    return CachedVector(number.to_bytes(4, "little") * dimensions, tokens=number, exact=True, truncated=False)


def vectors(*numbers: int) -> dict[bytes, CachedVector]:
    """Several vectors by key, as a cache returns them."""
    return {key(number): vector(number) for number in numbers}


async def kept(path: Path, *numbers: int, max_bytes: int = 8 * MIB) -> None:
    """Store vectors as an earlier run of the gateway would have done."""
    async with opened(path, max_bytes) as file:
        file.put(fresh(vectors(*numbers)))


async def found(file: DiskVectorCache, *numbers: int) -> list[int]:
    """Which of the vectors are stored; each is checked."""
    answer = await file.get_many([key(number) for number in numbers])
    assert answer == {k: v for k, v in vectors(*numbers).items() if k in answer}
    return [number for number in numbers if key(number) in answer]


def size(path: Path) -> int:
    """Bytes of all files in the folder."""
    return sum(part.stat().st_size for part in path.iterdir())
