"""The garbage collector in a process that lives long and leaves it little."""

from __future__ import annotations

import gc

_OBJECTS_BETWEEN_COLLECTIONS = 20_000


def spare_the_collector() -> None:
    """Have it pass over what lives as long as the process, and come seldom.

    Requests, rows and vectors make no cycles: it would walk them for nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 50)
