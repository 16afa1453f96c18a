"""A model that stays: its worker is started when it is first needed, and again after a crash, never in a tight loop.

Where it is wanted, the worker ends when nobody has asked for a while, and the next call starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hubgate.domain.errors import Cause, InvalidRequest, RuntimeFailed
from hubgate.domain.ports import Clock
from hubgate.runtime.process import WorkerProcess, worker_command
from hubgate.runtime.protocol import CallReply, Ready, Request

_LONGEST_PAUSE = 60.0


class LocalModel:
    """The model of one folder, in a worker process.

    Args:
        folder: the model's files.
        clock: what the pauses between starts are measured by.
        command: how its worker is started.
        idle_seconds: after so many without a call the worker ends; `None` lets it stay.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock = time.monotonic,
        command: Callable[[Path], Sequence[str]] = worker_command,
        idle_seconds: float | None = None,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._command = command
        self._start: asyncio.Task[WorkerProcess] | None = None
        self._started = 0.0
        self._fruitless = 0
        """Starts since the last answer."""
        self._why: RuntimeFailed | None = None
        self._closed = False
        self._idle_seconds = idle_seconds
        self._busy = 0
        """Calls being answered."""
        self._rest: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def memory(self) -> int | None:
        """Bytes of memory of its worker; `None` if it has none now, or the system does not tell."""
        worker = self._running()
        return worker.memory if worker else None

    async def ready(self) -> Ready:
        """Wait until the model is loaded.

        Raises:
            RuntimeFailed: it cannot be loaded.
        """
        with self._in_use():
            return await (await self._worker()).ready()

    async def ask(self, request_of: Callable[[int], Request]) -> CallReply:
        """Answer the request made for a call number.

        Raises:
            InvalidRequest: the request cannot be answered.
            RuntimeFailed: the model cannot be loaded, or its worker ended meanwhile.
        """
        with self._in_use():
            worker = await self._worker()
            try:
                answer = await worker.ask(request_of)
            except InvalidRequest:
                self._fruitless = 0
                raise
            except RuntimeFailed as error:
                self._why = error
                raise
            self._fruitless = 0
            return answer

    async def close(self) -> None:
        """End the worker. The model cannot be asked again."""
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()
        if self._start is not None:
            with contextlib.suppress(RuntimeFailed):
                await (await self._start).close()
        await asyncio.gather(*self._ending)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """While it is asked, and for the idle time afterwards, the worker stays."""
        self._busy += 1
        if self._rest is not None:
            self._rest.cancel()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._unload_later()

    def _unload_later(self) -> None:
        if self._idle_seconds is not None and not self._closed:
            self._rest = asyncio.get_running_loop().call_later(self._idle_seconds, self._unload)

    def _unload(self) -> None:
        worker = self._running()
        if worker is not None:
            self._start = None
            task = asyncio.create_task(worker.close())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        elif self._start is not None and not self._start.done():  # who wanted it has left while it loads
            self._unload_later()

    def _running(self) -> WorkerProcess | None:
        start = self._start
        if start is None or not start.done() or start.cancelled() or start.exception():
            return None
        return None if start.result().ended else start.result()

    async def _worker(self) -> WorkerProcess:
        if self._closed:
            raise RuntimeFailed(
                "The local model is closed.", remedy="Start the gate again.", cause=Cause.GATE_STOPPING
            )
        if self._start is None or (
            self._start.done() and (self._start.exception() or self._start.result().ended)
        ):
            self._refuse_tight_loop()
            self._fruitless += 1
            self._started = self._clock()
            self._start = asyncio.create_task(self._load())
        # A caller that stops waiting does not stop the start.
        return await asyncio.shield(self._start)

    async def _load(self) -> WorkerProcess:
        try:
            worker = await WorkerProcess.start(self._command(self._folder))
            await worker.ready()
        except RuntimeFailed as error:
            self._why = error
            raise
        return worker

    def _refuse_tight_loop(self) -> None:
        """After the second start in a row without an answer: one start in 1 s, then in 2, 4, … 60 s."""
        if self._why is None or self._fruitless < 2:
            return
        pause = min(_LONGEST_PAUSE, 2.0 ** (self._fruitless - 2))
        remaining = self._started + pause - self._clock()
        if remaining > 0:
            raise RuntimeFailed(
                self._why.message,
                remedy=self._why.remedy,
                cause=self._why.cause,
                retryable=self._why.retryable,
                retry_after=remaining,
            )
