"""How a process manages memory: Python's garbage collector, and the allocators of the C library and of Arrow."""

from __future__ import annotations

import gc
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc's mallopt(3)
_LARGE_BLOCK_BYTES = 4 << 20


def tune_for_imports() -> None:
    """Collect garbage rarely: imports create many objects and no garbage, and collections would take a seventh of their time."""
    gc.set_threshold(50_000)


def tune_for_requests() -> None:
    """Exclude everything that exists now from garbage collection, and collect rarely.

    Requests, rows and vectors create no reference cycles, so collections would find nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def tune_for_database_clients() -> None:
    """Collect garbage often, and return freed memory to the system. Call it before pyarrow is imported.

    Some clients leave reference cycles that hold the vectors of a request: 50,000 of their objects filled 300 MiB.
    With an arena of glibc for each thread, and Arrow's own allocator, what was freed would stay in the process.
    """
    gc.set_threshold(700)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    _set_allocator(_M_ARENA_MAX, 1)
    return_large_blocks()


def return_large_blocks() -> None:
    """Make the allocator return freed blocks of several MB to the system at once.

    By default, glibc keeps up to 64 MiB per thread once it has allocated such blocks.
    """
    _set_allocator(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
    _set_allocator(_M_TRIM_THRESHOLD, 2 * _LARGE_BLOCK_BYTES)


def return_freed_memory() -> None:
    """Return what was freed to the system: small blocks, too. Takes milliseconds."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # other C libraries have none
        trim(0)


def _set_allocator(parameter: int, value: int) -> None:
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have none
        mallopt(parameter, value)
