"""Making the output while the job still asks: a part is joined as soon as all before it are."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from queue import SimpleQueue
from typing import NamedTuple, Self

from hubgate.jobs.rows import Part, Sink


class _Told(NamedTuple):
    shard: int
    part: Part | None


class Joining:
    """Joins parts in a thread of its own, so that at the end little is left to write. Use it as a context.

    Only `finish` puts the output in place, and only there it is told what could not be written: that keeps no shard
    from being done.
    """

    def __init__(self, sink: Sink) -> None:
        self._told: SimpleQueue[_Told | None] = SimpleQueue()
        self._left = False
        self._thread = ThreadPoolExecutor(1, "job-joiner")
        self._work = self._thread.submit(sink.publish, self._in_order())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave what is not finished."""
        self._left = True
        self._told.put(None)
        self._thread.shutdown()

    def add(self, shard: int, part: Part | None) -> None:
        """Say that a shard is done; each once, in any order."""
        self._told.put(_Told(shard, part))

    def finish(self) -> None:
        """Wait until the output is in place; all shards were added.

        Raises:
            OSError: it cannot be written.
        """
        self._told.put(None)
        self._work.result()

    def _in_order(self) -> Iterator[Part]:
        waiting: dict[int, Part | None] = {}
        for shard in count():
            while shard not in waiting:
                told = self._told.get()
                if self._left:
                    raise _Left
                if told is None:
                    return
                waiting[told.shard] = told.part
            if (part := waiting.pop(shard)) is not None:
                yield part


class _Left(Exception):
    """The job ends without an output."""
