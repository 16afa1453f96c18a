"""`hubgate serve --workers N`: starts N gateways that share one port, and starts each again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import sys
import time
from typing import TYPE_CHECKING

import msgspec

from hubgate import __version__
from hubgate.cli.server.assignment import Assignment
from hubgate.cli.server.process import log_to_stderr, say_stopped, stop_signals
from hubgate.cli.server.sockets import reserve, url_of
from hubgate.cli.server.worker import Started
from hubgate.settings import LOOPBACK, InvalidSetting
from hubgate.store.lock import HomeLock

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from hubgate.settings import Settings

_MAX_PORT = 65535
_MAX_PAUSE = 30.0
_STABLE_SECONDS = 60.0
"""A worker that ran for so long starts again at once."""

_log = logging.getLogger(__name__)


def run_workers(settings: Settings, count: int) -> int:
    """Serve with `count` workers until Ctrl-C, SIGTERM or SIGHUP; returns the exit status.

    Raises:
        InvalidSetting: no shared database is configured, or the address cannot be used.
        StoreFailed: another gateway runs in this home.
    """
    if not settings.database_url:
        raise InvalidSetting(
            "--workers needs PostgreSQL: every worker is a gateway of its own, so set HUBGATE_DATABASE_URL."
        )
    if sys.platform != "linux":
        raise InvalidSetting(
            "--workers needs Linux: other systems do not divide connections among processes."
        )
    if settings.port + count > _MAX_PORT:
        raise InvalidSetting(
            f"HUBGATE_PORT must be at most {_MAX_PORT - count} with {count} workers: each has a port of its own, after that one."
        )
    log_to_stderr(settings.log_level)
    status = asyncio.run(Workers(settings, count).run())
    if status == 0:
        say_stopped()
    return status


class Workers:
    """The workers of a home. The lock of the home and what the command line reads there are those of this process."""

    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._count = count
        self._cli_key = secrets.token_urlsafe(32)
        self._running: dict[int, Process] = {}
        self._stopping = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Serve until a signal; returns the exit status."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        for one in stop_signals():
            loop.add_signal_handler(one, self._pass_on, one)
        with HomeLock(settings.home) as lock, reserve(settings.host, settings.port) as reserved:
            port: int = reserved.getsockname()[1]
            # The first one alone migrates the database, and reports what is wrong once.
            first = await self._start(1, port)
            keeping = [asyncio.create_task(self._keep(1, port, first))]
            if first is not None:
                lock.announce(url_of(reserved), self._cli_key)
                started = await asyncio.gather(
                    *(self._start(number, port) for number in range(2, self._count + 1))
                )
                keeping += [
                    asyncio.create_task(self._keep(number, port, one))
                    for number, one in enumerate(started, 2)
                ]
                if not self._stopping.is_set():
                    self._greet(url_of(reserved), [one for one in (first, *started) if one])
            await asyncio.gather(*keeping)
        return self._status

    def _greet(self, url: str, started: list[Started]) -> None:
        others = ", and on every other address of this machine" if self._settings.host in LOOPBACK else ""
        own = ", ".join(one.url.rpartition(":")[2] for one in started)
        print(
            f"hubgate {__version__} serves on {url}{others}, with {len(started)} workers (on {own})",
            flush=True,
        )
        for key in (one.first_admin_key for one in started):
            if key:
                print(f"\nYour admin key, shown only this once:\n\n    {key}\n", flush=True)

    def _pass_on(self, signum: signal.Signals) -> None:
        """Workers drain at the first signal, and cancel their calls at the second."""
        self._stopping.set()
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signum)

    async def _start(self, number: int, port: int) -> Started | None:
        """Start a worker and wait until it serves; `None` if it ended first."""
        assignment = Assignment(number=number, count=self._count, shared_port=port, cli_key=self._cli_key)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "hubgate.cli.server.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is for this process, which passes it on
        )
        self._running[number] = process
        if self._stopping.is_set():  # the signal came while the process was made
            process.terminate()
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(msgspec.json.encode(assignment) + b"\n")
        line = await process.stdout.readline()
        return msgspec.json.decode(line, type=Started) if line else None

    async def _keep(self, number: int, port: int, started: Started | None) -> None:
        """Wait for the end of a worker and start it again, until all shall stop."""
        if started is None and not self._stopping.is_set():
            self._status = 1  # it has printed why
            self._pass_on(signal.SIGTERM)
        failures = 0
        while True:
            began = time.monotonic()
            status = await self._running[number].wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - began >= _STABLE_SECONDS:
                failures = 0
            pause = min(_MAX_PAUSE, 2.0 ** (failures - 1)) if failures else 0.0
            failures += 1
            how = (
                f"was ended by {signal.Signals(-status).name}"
                if status < 0
                else f"ended with status {status}"
            )
            _log.error("worker %d %s: starting it again in %g seconds", number, how, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
                return
            if await self._start(number, port):
                _log.info("worker %d serves again", number)
