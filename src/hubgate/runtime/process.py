"""One life of a worker process, seen from the gate: start, ask, and know how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from hubgate.core.off_loop import off_loop
from hubgate.domain.endpoint import Precision
from hubgate.domain.errors import Cause, HubgateError, RuntimeFailed
from hubgate.runtime.machine import CpuShare, process_memory
from hubgate.runtime.protocol import (
    CallReply,
    CancelCall,
    Failed,
    Ready,
    Reply,
    Request,
    decode_reply,
    encode_frame,
    read_frame,
)

_WHOLE = CpuShare()
_SECRETS = ("HUBGATE_", "HF_")
_LAST_WORDS = 300
_SECONDS_TO_END = 5.0


def worker_command(
    folder: Path, *, precision: Precision = Precision.F32, share: CpuShare = _WHOLE
) -> list[str]:
    """How a worker is started.

    Without `-P` a folder named like a library, where the gate was started, would be run.
    """
    options = ["--precision", precision, "--threads", f"{share.threads}", "--lanes", f"{share.lanes}"]
    return [sys.executable, "-P", "-m", "hubgate.runtime.worker", str(folder), *options]


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: the gate's, without what holds its secrets."""
    return {name: value for name, value in environment.items() if not name.startswith(_SECRETS)}


class WorkerProcess:
    """A started worker. It is not started again: whoever wants another makes another."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._stderr = cast("asyncio.StreamReader", process.stderr)
        self._calls: dict[int, asyncio.Future[CallReply]] = {}
        self._numbers = itertools.count(1)
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._last_words = ""
        self._refusal: Failed | None = None
        self._life = asyncio.create_task(self._live())

    @classmethod
    async def start(cls, command: Sequence[str]) -> WorkerProcess:
        """Start a worker; it loads its model while others work. See `ready`.

        Raises:
            RuntimeFailed: the system starts no process.
        """
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env=worker_environment(os.environ),
                # Ctrl-C in a terminal reaches the gate, which drains; the worker must not die under it.
                start_new_session=True,
            )
        except OSError as error:
            raise RuntimeFailed(
                f"The local model's worker could not be started: {error.strerror}.",
                remedy="Check the memory and the process limits of this machine.",
                cause=Cause.RUNTIME_CRASHED,
            ) from error
        return cls(process)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def memory(self) -> int | None:
        """Bytes of memory that it takes, where the system tells; pages shared with others count in part."""
        return process_memory(self._process.pid)

    @property
    def ended(self) -> bool:
        """Whether it can answer no more."""
        return self._life.done()

    async def ready(self) -> Ready:
        """Wait until the model is loaded.

        Raises:
            RuntimeFailed: it cannot be loaded, or the worker ended first.
        """
        return await asyncio.shield(self._ready)

    async def ask(self, request_of: Callable[[int], Request]) -> CallReply:
        """Send the request made for a call number, and wait for its reply. A caller may stop waiting at any time.

        Raises:
            InvalidRequest: the request cannot be answered.
            RuntimeFailed: the worker ended first.
        """
        call = next(self._numbers)
        request = encode_frame(request_of(call))
        reply: asyncio.Future[CallReply] = asyncio.get_running_loop().create_future()
        self._calls[call] = reply
        try:
            await self._send(request)
            return await reply
        except asyncio.CancelledError:
            if not self._stdin.is_closing():
                self._stdin.write(encode_frame(CancelCall(call)))
            raise
        finally:
            self._calls.pop(call, None)
            del reply  # it holds the error, whose traceback holds this frame

    async def close(self, *, patience: float = _SECONDS_TO_END) -> None:
        """Let it end, and after so many seconds end it."""
        self._stdin.close()
        try:
            await asyncio.wait_for(asyncio.shield(self._life), patience)
        except TimeoutError:
            self._kill()
            await self._life

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _send(self, request: bytes) -> None:
        """Write a whole frame at once, so that a cancelled caller leaves no half of one in the pipe."""
        if self.ended:
            raise self._epitaph()
        self._stdin.write(request)
        with contextlib.suppress(ConnectionError):  # the end is told by `_live`
            await self._stdin.drain()

    async def _live(self) -> None:
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                body = await read_frame(self._stdout)
                self._deliver(await off_loop(len(body), decode_reply, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # its end
        except msgspec.DecodeError:
            self._kill()  # what it says cannot be trusted any more
        await listening
        await self._process.wait()
        self._bury()

    def _deliver(self, reply: Reply) -> None:
        match reply:
            case Ready():
                self._ready.set_result(reply)
            case Failed(call=None):
                self._refusal = reply
            case Failed():
                waiting = self._calls.get(reply.call or 0)
                if waiting is not None and not waiting.done():
                    waiting.set_exception(reply.error())
            case _:
                waiting = self._calls.get(reply.call)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)

    async def _listen(self) -> None:
        """Remember the last line the worker prints; in a crash it is the reason."""
        rest = b""
        while chunk := await self._stderr.read(65536):
            *_, rest = lines = [*(rest + chunk)[-65536:].split(b"\n")]
            said = [line for line in lines if line.strip()]
            if said:
                self._last_words = said[-1].decode(errors="replace").strip()[:_LAST_WORDS]

    def _bury(self) -> None:
        waiting: list[asyncio.Future[Any]] = [self._ready, *self._calls.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(self._epitaph())
                future.exception()  # nobody may be waiting

    def _epitaph(self) -> HubgateError:
        """Why there is no answer."""
        if self._refusal is not None:
            return self._refusal.error()
        status = self._process.returncode
        how = (
            f"was ended by {signal.Signals(-status).name}"
            if status and status < 0
            else f"ended with status {status}"
        )
        why = f", and said last: {self._last_words}" if self._last_words else ""
        return RuntimeFailed(
            f"The local model's worker {how}{why}.",
            remedy="Ask again: it is started anew. If it ends again, give this machine more memory or see the log.",
            cause=Cause.RUNTIME_CRASHED,
            retryable=True,
        )
