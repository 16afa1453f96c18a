"""The most requests that a real server receives in a minute, whatever happens to it or to the gateway.

A hundred callers or more send calls without a pause, and cancel one in five. All rows of the table run at the
same time, each with a gateway and a server of its own; together they take about three minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, Self

import aiohttp
import pytest
from gateway_process import GatewayProcess, Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

pytestmark = pytest.mark.timeout(900)
PREPARING = Lock()
"""A machine with few processors cannot start them all at once."""

KEY = secrets.token_urlsafe(24)
LEAVING = 0.2
SECONDS = 145.0


class RecordingServer:
    """`recording_server.py` as a process."""

    def __enter__(self) -> Self:
        tests = Path(__file__).parents[1]
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("recording_server.py")],
            env=os.environ | {"PYTHONPATH": str(tests)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = self._line()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGCONT)
        self._process.communicate(timeout=30)

    def signal(self, which: signal.Signals) -> None:
        self._process.send_signal(which)

    def fullest_minute(self) -> tuple[int, int]:
        """The most requests in any 60 seconds since the last call, and their total."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        most, every = self._line().split()
        return int(most), int(every)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@dataclass
class World:
    """The gateway of one row, which may be restarted, and its server."""

    home: Home
    server: RecordingServer
    gateway: GatewayProcess
    stack: contextlib.ExitStack
    began: float = 0.0

    def wait_until(self, seconds: float) -> None:
        """Wait until so many seconds after the callers began."""
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))

    def restart(self, how: signal.Signals) -> None:
        self.gateway.signal(how)
        self.gateway.wait()
        self.gateway = self.stack.enter_context(self.home.serve())


def nothing(world: World) -> None:
    """Nothing happens."""


def kill_at(*times: float) -> Callable[[World], None]:
    def happen(world: World) -> None:
        for at in times:
            world.wait_until(at)
            world.restart(signal.SIGKILL)

    return happen


def stop_in_order(world: World) -> None:
    world.wait_until(40)
    world.restart(signal.SIGTERM)


def stand_still(world: World) -> None:
    """Suspend the server before the second minute's burst, and resume it ten seconds later."""
    world.wait_until(56)
    world.server.signal(signal.SIGSTOP)
    world.wait_until(66)
    world.server.signal(signal.SIGCONT)


def change_the_limit(world: World) -> None:
    """Every two seconds, with the callers' queue full."""
    for number in range(40):
        world.wait_until(50 + 2 * number)
        limit = {"requests_per_minute": 299 + number % 2, "max_concurrent_requests": 50 + number}
        reply = world.gateway.request("PATCH", "/api/endpoints/writer", {"rate_limit": limit}, key=KEY)
        assert reply.status == 200, reply.body


class Row(NamedTuple):
    """A row of the table."""

    per_minute: int
    burst: int
    happens: Callable[[World], None]
    callers: int = 100


ROWS: Mapping[str, Row] = {
    "60, burst 1: nothing happens": Row(60, 1, nothing),
    "60, burst 60: nothing happens": Row(60, 60, nothing),
    "600, burst 1: kill -9 at 40 s": Row(600, 1, kill_at(40)),
    "600, burst 1: SIGTERM and start again": Row(600, 1, stop_in_order),
    "60, burst 60: kill -9 at 30 s": Row(60, 60, kill_at(30)),
    "600, burst 600: kill -9 at 30 s and 70 s": Row(600, 600, kill_at(30, 70)),
    "600, burst 600: SIGTERM and start again": Row(600, 600, stop_in_order),
    "60, burst 60: server stopped for 10 s": Row(60, 60, stand_still),
    "300, burst 1: limit changed every 2 s": Row(300, 1, change_the_limit, 200),
}


async def call(world: World, session: aiohttp.ClientSession, chance: random.Random) -> None:
    """One call, which may be cancelled."""
    leaves = chance.random() < LEAVING
    url = f"{world.gateway.url}/_inference/completion/writer?timeout=40s"
    try:
        async with asyncio.timeout(chance.random() * 2 if leaves else 60):
            async with session.post(url, json={"input": "Once upon a time"}) as reply:
                await reply.read()
                if reply.status == 200:
                    return
    except (aiohttp.ClientError, TimeoutError):
        pass
    await asyncio.sleep(0.2 + chance.random())


async def ask_all(world: World, callers: int) -> None:
    """Send calls until the time is over."""
    until = world.began + SECONDS

    async def ask(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < until:
            await call(world, session, chance)

    headers = {"authorization": f"Bearer {KEY}"}
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        asking = [asyncio.create_task(ask(number)) for number in range(callers)]
        await asyncio.wait(asking, timeout=SECONDS)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def run(row: Row, folder: Path) -> tuple[int, int]:
    """The most requests in a minute, and their total."""
    home = Home(folder)
    home.env["HUBGATE_ADMIN_KEY"] = KEY
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as asking:
        with PREPARING:
            server = stack.enter_context(RecordingServer())
            added = home.run(
                *("add", "writer", "--url", server.url, "--task", "completion"),
                *("--requests-per-minute", str(row.per_minute), "--burst", str(row.burst)),
            )
            assert added.status == 0, added.err
            world = World(home, server, stack.enter_context(home.serve()), stack)
        server.fullest_minute()  # what the registration asked is no call
        world.began = time.monotonic()
        asked = asking.submit(asyncio.run, ask_all(world, row.callers))
        row.happens(world)
        asked.result()
        return server.fullest_minute()


@pytest.fixture(scope="module")
def fullest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[tuple[int, int]]]]:
    """Results of all rows, which run at the same time."""
    with ThreadPoolExecutor(len(ROWS)) as pool:
        yield {
            name: pool.submit(run, row, tmp_path_factory.mktemp(f"row{number}"))
            for number, (name, row) in enumerate(ROWS.items())
        }


@pytest.mark.parametrize("name", ROWS)
def test_server_never_receives_more_than_the_limit_per_minute(
    name: str, fullest: Mapping[str, Future[tuple[int, int]]]
) -> None:
    most, every = fullest[name].result()
    per_minute = ROWS[name].per_minute
    print(f"{name}: {most} in the fullest minute, {every} in {SECONDS:g} s")
    assert per_minute / 2 < most <= per_minute
