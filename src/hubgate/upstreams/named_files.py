"""Files and folders that an operator names: read in a thread of their own, with a limit of size and time.

Neither a pipe nor a dead network mount can then block the event loop, or the threads that other work needs.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

SECONDS = 10.0
MAX_BYTES = 8 * 1024 * 1024
_MAX_THREADS = 32
_threads = threading.BoundedSemaphore(_MAX_THREADS)

_T = TypeVar("_T")


async def in_own_thread(work: Callable[[], _T], seconds: float = SECONDS) -> _T:
    """Run blocking work in a thread of its own: one of the loop's threads could hang, and delay the end of the process.

    Raises:
        TimeoutError: it takes too long, and continues in its thread; or too many such threads are running.
    """
    if not _threads.acquire(blocking=False):
        raise TimeoutError
    done: Future[_T] = Future()
    done.set_running_or_notify_cancel()  # so that it cannot be cancelled

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(error)
        finally:
            _threads.release()

    threading.Thread(target=run, name="named-file", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(done)


def read_regular(path: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file. Blocks as long as its disk does.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger than `max_bytes`.
    """
    # Without O_NONBLOCK, opening a pipe blocks until its other end is open.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(f"larger than {max_bytes} bytes")
    return content
