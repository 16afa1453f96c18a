"""Memory of a process that lives long: the garbage collector, to which it leaves little, and the C library's allocator."""

from __future__ import annotations

import ctypes
import gc

_OBJECTS_BETWEEN_COLLECTIONS = 20_000
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""glibc's `mallopt(3)`."""
_LARGE_BLOCK_BYTES = 4 << 20


def spare_the_collector() -> None:
    """Have it pass over what lives as long as the process, and come seldom.

    Requests, rows and vectors make no cycles: it would walk them for nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 50)


def return_large_blocks() -> None:
    """Have freed blocks of several MB go back to the system at once.

    By itself glibc keeps up to 64 MiB for each thread once it has seen such blocks. Other C libraries do not.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE_BLOCK_BYTES)
