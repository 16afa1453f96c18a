"""A local model: its worker starts on first use, and again after a crash, with growing pauses.

With an idle timeout the worker ends after a while without calls, and the next call starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from hubgate.core.off_loop import outlasting
from hubgate.domain.errors import Cause, InvalidRequest, RuntimeFailed
from hubgate.domain.ports import Clock
from hubgate.runtime.process import WorkerProcess, worker_command
from hubgate.runtime.protocol import CallReply, Ready, Request, TextPiece

_MAX_PAUSE = 60.0


class LocalModel:
    """The model of one folder, in a worker process.

    Args:
        folder: the model's files.
        clock: seconds that never go back.
        command: the command line of the worker.
        idle_seconds: without a call, after which the worker ends; `None` keeps it.
        start: starts the worker of a command line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock = time.monotonic,
        command: Callable[[Path], Sequence[str]] = worker_command,
        idle_seconds: float | None = None,
        start: Callable[[Sequence[str]], Awaitable[WorkerProcess]] = WorkerProcess.start,
    ) -> None:
        self._folder = folder
        self._start_worker = start
        self._clock = clock
        self._command = command
        self._start: asyncio.Task[WorkerProcess] | None = None
        self._started = 0.0
        self._starts_without_reply = 0
        """Starts since the last reply."""
        self._last_error: RuntimeFailed | None = None
        self._closed = False
        self._idle_seconds = idle_seconds
        self._busy = 0
        """Calls in progress."""
        self._idle_timer: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def memory(self) -> int | None:
        """Bytes of memory of its worker; `None` if there is no worker or it is unknown."""
        worker = self._running()
        return worker.memory if worker else None

    async def ready(self) -> Ready:
        """Wait until the model is loaded.

        Raises:
            RuntimeFailed: it cannot be loaded.
        """
        with self._in_use():
            return await (await self._worker()).ready()

    async def request(self, request_of: Callable[[int], Request]) -> CallReply:
        """Send the request created for a call number to the worker.

        Raises:
            InvalidRequest: the request is invalid.
            RuntimeFailed: the model cannot be loaded, or its worker ended.
        """
        with self._in_use():
            worker = await self._worker()
            with self._noting_failure():
                reply = await worker.request(request_of)
            self._starts_without_reply = 0
            return reply

    async def stream(self, request_of: Callable[[int], Request]) -> AsyncGenerator[TextPiece]:
        """The same for a request with several replies. The iterator must be closed.

        Raises:
            InvalidRequest: the request is invalid.
            RuntimeFailed: the model cannot be loaded, or its worker ended.
        """
        with self._in_use():
            worker = await self._worker()
            with self._noting_failure():
                async with contextlib.aclosing(worker.stream(request_of)) as pieces:
                    async for piece in pieces:
                        self._starts_without_reply = 0
                        yield piece

    async def close(self) -> None:
        """End the worker for good."""
        self._closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._start is not None:
            with contextlib.suppress(RuntimeFailed):
                await (await self._start).close()
        await asyncio.gather(*self._ending)

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except InvalidRequest:
            self._starts_without_reply = 0
            raise
        except RuntimeFailed as error:
            self._last_error = error
            raise

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keep the worker during a call, and for the idle time afterwards."""
        self._busy += 1
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._unload_later()

    def _unload_later(self) -> None:
        if self._idle_seconds is not None and not self._closed:
            self._idle_timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._unload)

    def _unload(self) -> None:
        worker = self._running()
        if worker is not None:
            self._start = None
            task = asyncio.create_task(worker.close())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        elif self._start is not None and not self._start.done():  # its caller has left while it loads
            self._unload_later()

    def _running(self) -> WorkerProcess | None:
        start = self._start
        if start is None or not start.done() or start.cancelled() or start.exception():
            return None
        return None if start.result().ended else start.result()

    async def _worker(self) -> WorkerProcess:
        if self._closed:
            raise RuntimeFailed(
                "The local model is closed.", remedy="Restart hubgate.", cause=Cause.GATE_STOPPING
            )
        if self._start is None or (
            self._start.done() and (self._start.exception() or self._start.result().ended)
        ):
            self._check_restart_pause()
            self._starts_without_reply += 1
            self._started = self._clock()
            self._start = asyncio.create_task(self._load())
        # A caller that is cancelled does not cancel the start.
        return await outlasting(self._start)

    async def _load(self) -> WorkerProcess:
        try:
            worker = await self._start_worker(self._command(self._folder))
            await worker.ready()
        except RuntimeFailed as error:
            self._last_error = error
            raise
        return worker

    def _check_restart_pause(self) -> None:
        """After the second start without a reply: wait 1 s before the next, then 2, 4, … 60 s."""
        if self._last_error is None or self._starts_without_reply < 2:
            return
        pause = min(_MAX_PAUSE, 2.0 ** (self._starts_without_reply - 2))
        remaining = self._started + pause - self._clock()
        if remaining > 0:
            raise RuntimeFailed(
                self._last_error.message,
                remedy=self._last_error.remedy,
                cause=self._last_error.cause,
                retryable=self._last_error.retryable,
                retry_after=remaining,
            )
