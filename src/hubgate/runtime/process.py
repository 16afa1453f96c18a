"""A worker process, as hubgate sees it: start it, send requests, and report how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

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
    TextPiece,
    decode_reply,
    encode_frame,
    read_frame,
)

_WHOLE = CpuShare()
_SECRETS = ("HUBGATE_", "HF_")
_MAX_LAST_LINE = 300
_CLOSE_SECONDS = 5.0


def worker_command(
    folder: Path,
    *,
    precision: Precision = Precision.F32,
    share: CpuShare = _WHOLE,
    generates: bool = False,
) -> list[str]:
    """The command line of a worker.

    Without `-P`, Python would import a folder in the working directory that has the name of a library.
    """
    options = ["--precision", precision, "--threads", f"{share.threads}", "--lanes", f"{share.lanes}"]
    if generates:
        options.append("--generate")
    return [sys.executable, "-P", "-m", "hubgate.runtime.worker", str(folder), *options]


def could_not_start(error: OSError) -> RuntimeFailed:
    return RuntimeFailed(
        f"The local model's worker could not be started: {error.strerror or error}.",
        remedy="Check the memory and the process limits of this machine.",
        cause=Cause.RUNTIME_CRASHED,
    )


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Hubgate's environment without its secrets."""
    return {name: value for name, value in environment.items() if not name.startswith(_SECRETS)}


class Process(Protocol):
    """What is used of `asyncio.subprocess.Process`; see also `attaching`."""

    @property
    def stdin(self) -> asyncio.StreamWriter | None: ...

    @property
    def stdout(self) -> asyncio.StreamReader | None: ...

    @property
    def stderr(self) -> asyncio.StreamReader | None: ...

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> int | None: ...

    def kill(self) -> None: ...


class WorkerProcess:
    """A started worker. It is never restarted: create another one instead."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)
        self._stderr = cast("asyncio.StreamReader", process.stderr)
        self._calls: dict[int, asyncio.Future[CallReply]] = {}
        self._streams: dict[int, asyncio.Queue[TextPiece | HubgateError]] = {}
        self._numbers = itertools.count(1)
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._last_line = ""
        self._load_failure: Failed | None = None
        self._task = asyncio.create_task(self._run())

    @classmethod
    async def start(cls, command: Sequence[str]) -> WorkerProcess:
        """Start a worker, which loads its model in the background: see `ready`.

        Raises:
            RuntimeFailed: the process cannot be started.
        """
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env=worker_environment(os.environ),
                # Ctrl-C in a terminal is for hubgate, which drains; it must not kill the worker.
                start_new_session=True,
            )
        except OSError as error:
            raise could_not_start(error) from error
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def memory(self) -> int | None:
        """Bytes of memory; `None` if unknown. Shared pages count in part."""
        return process_memory(self._process.pid)

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def ready(self) -> Ready:
        """Wait until the model is loaded.

        Raises:
            RuntimeFailed: it cannot be loaded, or the worker ended first.
        """
        return await asyncio.shield(self._ready)

    async def request(self, request_of: Callable[[int], Request]) -> CallReply:
        """Send the request created for a call number, and wait for its reply. The caller may be cancelled.

        Raises:
            InvalidRequest: the request is invalid.
            RuntimeFailed: the worker ended first.
        """
        call = next(self._numbers)
        frame = encode_frame(request_of(call))
        reply: asyncio.Future[CallReply] = asyncio.get_running_loop().create_future()
        self._calls[call] = reply
        try:
            await self._send(frame)
            return await reply
        except asyncio.CancelledError:
            if not self._stdin.is_closing():
                self._stdin.write(encode_frame(CancelCall(call)))
            raise
        finally:
            self._calls.pop(call, None)
            del reply  # it holds the error, whose traceback holds this frame

    async def stream(self, request_of: Callable[[int], Request]) -> AsyncGenerator[TextPiece]:
        """Send the request created for a call number, and yield its replies. Ending early cancels the call.

        Raises:
            InvalidRequest: the request is invalid.
            RuntimeFailed: the worker ended first.
        """
        call = next(self._numbers)
        frame = encode_frame(request_of(call))
        pieces: asyncio.Queue[TextPiece | HubgateError] = asyncio.Queue()
        self._streams[call] = pieces
        ended = False
        try:
            await self._send(frame)
            while not ended:
                piece = await pieces.get()
                ended = not isinstance(piece, TextPiece) or piece.finish_reason is not None
                if isinstance(piece, HubgateError):
                    raise piece
                yield piece
        finally:
            del self._streams[call]
            if not ended and not self._stdin.is_closing():
                self._stdin.write(encode_frame(CancelCall(call)))

    async def close(self, *, patience: float = _CLOSE_SECONDS) -> None:
        """Let the worker finish, and kill it after `patience` seconds."""
        self._stdin.close()
        try:
            await asyncio.wait_for(asyncio.shield(self._task), patience)
        except TimeoutError:
            self._kill()
            await self._task

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _send(self, frame: bytes) -> None:
        """Write a whole frame at once, so that a cancelled caller leaves no partial frame in the pipe."""
        if self.ended:
            raise self._end_error()
        if self._stdin.is_closing():
            return  # the worker is ending, which `_run` reports
        self._stdin.write(frame)
        with contextlib.suppress(ConnectionError):  # `_run` reports the end
            await self._stdin.drain()

    async def _run(self) -> None:
        stderr = asyncio.create_task(self._read_stderr())
        try:
            while True:
                body = await read_frame(self._stdout)
                self._deliver(await off_loop(len(body), decode_reply, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the worker has ended
        except msgspec.DecodeError:
            self._kill()  # its output cannot be trusted any more
        await self._process.wait()
        await stderr
        self._fail_pending()

    def _deliver(self, reply: Reply) -> None:
        match reply:
            case Ready():
                self._ready.set_result(reply)
            case Failed(call=None):
                self._load_failure = reply
            case TextPiece() | Failed() if reply.call in self._streams:
                self._streams[reply.call].put_nowait(reply if isinstance(reply, TextPiece) else reply.error())
            case TextPiece():
                pass  # its caller has left
            case Failed():
                waiting = self._calls.get(reply.call or 0)
                if waiting is not None and not waiting.done():
                    waiting.set_exception(reply.error())
            case _:
                waiting = self._calls.get(reply.call)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)

    async def _read_stderr(self) -> None:
        """Keep the last line of the worker's output: in a crash it is the reason."""
        rest = b""
        while chunk := await self._stderr.read(65536):
            *_, rest = lines = [*(rest + chunk)[-65536:].split(b"\n")]
            printed = [line for line in lines if line.strip()]
            if printed:
                self._last_line = printed[-1].decode(errors="replace").strip()[:_MAX_LAST_LINE]

    def _fail_pending(self) -> None:
        waiting: list[asyncio.Future[Any]] = [self._ready, *self._calls.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(self._end_error())
                future.exception()  # nobody may be waiting
        for pieces in self._streams.values():
            pieces.put_nowait(self._end_error())

    def _end_error(self) -> HubgateError:
        """Why the worker ended."""
        if self._load_failure is not None:
            return self._load_failure.error()
        status = self._process.returncode
        if status is None:
            how = "has ended"
        elif status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        else:
            how = f"ended with status {status}"
        output = f". Its last output: {self._last_line}" if self._last_line else ""
        return RuntimeFailed(
            f"The local model's worker {how}{output}.",
            remedy="Retry: hubgate restarts it. If it ends again, see the log, or give this machine more memory.",
            cause=Cause.RUNTIME_CRASHED,
            retryable=True,
        )
