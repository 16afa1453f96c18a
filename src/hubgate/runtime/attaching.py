"""Connects to the worker process of a model that this machine's gateways share, and starts it if there is none."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from hubgate import __version__
from hubgate.files import create_private_folder
from hubgate.runtime.process import WorkerProcess, could_not_start, worker_environment
from hubgate.runtime.sharing import short_name

_START_SECONDS = 60.0
_POLL_SECONDS = 0.02
_PEER = struct.Struct("3i")
_LOG_BYTES = 65536


async def attach(folder: Path, command: Sequence[str]) -> WorkerProcess:
    """Use the worker with this command line, which any gateway with the same `folder` may have started.

    Raises:
        RuntimeFailed: it cannot be started.
    """
    place = _Place(folder, command)
    try:
        connected = await asyncio.to_thread(place.connect_or_start)
        reader, writer = await asyncio.open_unix_connection(sock=connected)
    except OSError as error:
        raise could_not_start(error) from error
    pid, _, _ = _PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return WorkerProcess(_Attached(pid, reader, writer, place.log))


class _Place:
    """Where the worker of a command line listens."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        # Not one of another version, which may go on for a moment after an upgrade, and speak another protocol.
        name = hashlib.sha256("\0".join((__version__, *command)).encode()).hexdigest()[:16]
        self._folder = folder
        self._command = command
        self._socket = folder / f"{name}.socket"
        self._lock = folder / f"{name}.lock"
        self.log = folder / f"{name}.log"

    def connect_or_start(self) -> socket.socket:
        create_private_folder(self._folder)
        if connected := self._connect():
            return connected
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._connect() or self._start()

    def _connect(self) -> socket.socket | None:
        """A connection that the worker has accepted; `None` if it does not run or is about to end."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_name(self._socket) as name:
                connected.connect(name)
            connected.settimeout(_START_SECONDS)
            if connected.recv(1):
                connected.setblocking(False)
                return connected
        except (FileNotFoundError, ConnectionError):
            pass
        connected.close()
        return None

    def _start(self) -> socket.socket:
        self._socket.unlink(missing_ok=True)  # of a worker that has ended
        with self.log.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - Python itself
                [*self._command, "--socket", self._socket],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=worker_environment(os.environ),
                start_new_session=True,  # it outlives the gateway that needed it first
            )
        threading.Thread(target=process.wait, daemon=True).start()  # for as long as this gateway runs
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            if connected := self._connect():
                return connected
            if process.returncode is not None:
                break
            time.sleep(_POLL_SECONDS)
        raise OSError(last_line(self.log) or "it does not answer")


class _Attached:
    """The process behind a connection, as far as `WorkerProcess` has to know it."""

    returncode: int | None = None

    def __init__(
        self, pid: int, stdout: asyncio.StreamReader, stdin: asyncio.StreamWriter, log: Path
    ) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = asyncio.StreamReader()
        self._log = log

    async def wait(self) -> int | None:
        """The connection has ended."""
        self.stdin.close()
        self.stderr.feed_data(last_line(self._log).encode())
        self.stderr.feed_eof()
        return None

    def kill(self) -> None:
        """Leave at once. The process belongs to other gateways, too."""
        self.stdin.transport.abort()


def last_line(log: Path) -> str:
    """The last line of a worker's output, the reason if it crashed."""
    try:
        lines = log.read_bytes()[-_LOG_BYTES:].split(b"\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip()), b"").decode(errors="replace")
