"""Three gateways that share a rate limit, and what happens to them: the rows of `benchmarks/shared.py` and of `tests/slow`."""

from __future__ import annotations

import bisect
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gateway_process import GatewayProcess, Home
from postgres.server import PostgresServer, free_port, short_folder
from slow_server import max_per_minute

from servers.callers import Callers
from servers.recorder import Recorder
from servers.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GATEWAYS = 3
CAREFUL = 66.0
"""Seconds after the start for which the limit is not used fully."""
LOWERED_FROM, LOWERED_TO = 20.0, 80.0
_CHANGE_SECONDS = 0.5
_FLUSH_SECONDS = 20.0
_BODY = {"input": "Once upon a time"}
_STARTING = threading.Lock()
"""A machine with few processors cannot start many gateways at once."""


@dataclass
class World:
    """The gateways and the servers behind them."""

    gateways: Sequence[GatewayProcess]
    upstream: Recorder
    database: PostgresServer
    wire: Wire
    """Between the first gateway and PostgreSQL."""
    last_wire: Wire
    """Between the last gateway and PostgreSQL."""
    key: str
    rate: int
    began: float = 0.0

    def at(self, seconds: float) -> None:
        """Wait until so many seconds after the callers began."""
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))

    def limit(self, requests_per_minute: int) -> None:
        """Change the limit at the first gateway."""
        body = {"rate_limit": {"requests_per_minute": requests_per_minute}}
        reply = self.gateways[0].request("PATCH", "/api/endpoints/writer", body, key=self.key)
        assert reply.status == 200, reply.body


class Scenario(NamedTuple):
    """What happens, and to whom."""

    happens: Callable[[World], None]
    callers: Sequence[int] = (6, 6, 6)
    every: Sequence[float] = (0.0, 0.0, 0.0)
    is_fatal: bool = False
    """Whether calls of the first gateway fail."""
    excess: float = 1.0
    """What the server may receive, compared with the limit."""
    lowered: float = 1.0
    """The most between `LOWERED_FROM` and `LOWERED_TO`, compared with the limit at the start."""
    fails_changes: bool = False
    """Whether the first gateway cannot change the configuration for a while."""


def nothing(_: World) -> None:
    """Nothing happens."""


def kill_gateway(world: World) -> None:
    world.at(20)
    world.gateways[0].signal(signal.SIGKILL)


def stop_gateway(world: World) -> None:
    world.at(20)
    world.gateways[0].signal(signal.SIGSTOP)
    world.at(30)
    world.gateways[0].signal(signal.SIGCONT)


def cut_wire(*, mend_at: float) -> Callable[[World], None]:
    """The first gateway cannot reach PostgreSQL; the others can."""

    def happen(world: World) -> None:
        world.at(20)
        world.wire.freeze()
        world.at(mend_at)
        world.wire.cut()
        world.wire.mend()

    return happen


def slow_wire(world: World) -> None:
    """The first gateway is 60 ms away from PostgreSQL."""
    world.wire.delay = 0.03


def kill_database(world: World) -> None:
    world.at(10)
    world.database.kill()
    world.at(70)
    world.database.start()


def freeze_database(seconds: float) -> Callable[[World], None]:
    def happen(world: World) -> None:
        world.at(10)
        world.database.freeze()
        world.at(10 + seconds)
        world.database.thaw()

    return happen


def edit(world: World) -> None:
    """The limit is changed every two seconds."""
    for number in range(40):
        world.at(10 + 2 * number)
        world.limit(world.rate - (number + 1) % 2)


def edit_cut(world: World) -> None:
    """The last gateway cannot reach PostgreSQL while the limit is lowered to a fifth."""
    world.at(10)
    world.last_wire.freeze()
    world.at(15)
    world.limit(world.rate // 5)
    world.at(LOWERED_TO)
    world.last_wire.cut()
    world.last_wire.mend()


SCENARIOS = {
    "rate": Scenario(nothing),
    "unequal": Scenario(nothing, callers=(1, 6, 24), every=(0.5, 0.0, 0.0)),
    "kill-gateway": Scenario(kill_gateway, is_fatal=True),
    "stop-gateway": Scenario(stop_gateway),
    "kill-database": Scenario(kill_database, fails_changes=True),
    "freeze-database": Scenario(freeze_database(60), fails_changes=True),
    "short-freeze": Scenario(freeze_database(8), fails_changes=True),
    "cut-wire": Scenario(cut_wire(mend_at=40), fails_changes=True),
    "long-cut": Scenario(cut_wire(mend_at=70), excess=1 + 1 / GATEWAYS, fails_changes=True),
    "slow-wire": Scenario(slow_wire),
    "edit": Scenario(edit),
    "edit-cut": Scenario(edit_cut, lowered=0.2 + 1 / GATEWAYS),
}


class Changes(threading.Thread):
    """Changes an endpoint through the first gateway, again and again."""

    def __init__(self, gateway: GatewayProcess, key: str) -> None:
        super().__init__(daemon=True)  # the process can end when something else fails
        self._gateway = gateway
        self._key = key
        self._over = threading.Event()
        self.tried = self.answered = 0
        """The last values, which are counted up."""
        self.failed: Counter[str] = Counter()

    def run(self) -> None:
        while not self._over.wait(_CHANGE_SECONDS):
            self.tried += 1
            body = {"rate_limit": {"requests_per_minute": self.tried}}
            try:
                reply = self._gateway.request("PATCH", "/api/endpoints/changed", body, key=self._key)
            except OSError as error:
                self.failed[type(error).__name__] += 1
                continue
            if reply.status == 200:
                self.answered = self.tried
            else:
                cause = reply.json()["error"]["cause"] if reply.body else ""
                self.failed[f"{reply.status} {cause}"] += 1

    def stop(self) -> None:
        self._over.set()
        self.join()

    def are_kept(self, gateways: Sequence[GatewayProcess]) -> bool:
        """Whether all gateways agree on a value, which is not older than the last answer."""
        found = {
            gateway.request("GET", "/api/endpoints/changed", key=self._key).json()["rate_limit"][
                "requests_per_minute"
            ]
            for gateway in gateways
        }
        return len(found) == 1 and self.answered <= found.pop() <= self.tried


@dataclass
class Outcome:
    """What was seen."""

    rate: int
    seconds: float
    arrivals: Sequence[float]
    """Seconds after the callers began."""
    callers: Callers
    changes: Changes
    changes_are_kept: bool
    counted: int
    """Calls, by the gateways' usage report."""
    output: Sequence[str] = field(repr=False)

    @property
    def most(self) -> int:
        """The most requests in any 60 seconds."""
        return max_per_minute(self.arrivals)

    @property
    def used(self) -> float:
        """The share of the limit that was used once the start is over."""
        end = self.seconds - 1
        return self.between(CAREFUL, end) / (end - CAREFUL) * 60 / self.rate

    @property
    def answered(self) -> Sequence[int]:
        return [self.callers.answered[number] for number in range(GATEWAYS)]

    @property
    def failed(self) -> dict[str, int]:
        return {f"gateway {number}: {what}": count for (number, what), count in self.callers.failed.items()}

    @property
    def longest_gap(self) -> tuple[float, float]:
        """Seconds without a request, and when they began."""
        return max(
            (after - before, before) for before, after in zip(self.arrivals, self.arrivals[1:], strict=False)
        )

    def between(self, start: float, end: float) -> int:
        """Requests in this time."""
        return bisect.bisect_left(self.arrivals, end) - bisect.bisect_left(self.arrivals, start)


def observe(scenario: Scenario, *, rate: int, seconds: float) -> Outcome:
    """Run a scenario.

    Args:
        scenario: one of `SCENARIOS`.
        rate: the limit.
        seconds: how long there are calls.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hg-", dir="/tmp")))
        with _STARTING:
            world = _start(stack, folder, rate)
        urls = [f"{each.url}/_inference/completion/writer?timeout=30s" for each in world.gateways]
        callers = Callers(urls, world.key, _BODY, scenario.callers, scenario.every)
        changes = Changes(world.gateways[0], world.key)
        world.upstream.arrivals()  # what the registration asked is no call
        with ThreadPoolExecutor(1) as thread:
            changes.start()
            world.began = time.monotonic()
            calling = thread.submit(callers.call_for, seconds)
            scenario.happens(world)
            calling.result()
        changes.stop()
        living = world.gateways[1:] if scenario.is_fatal else world.gateways
        return Outcome(
            rate=rate,
            seconds=seconds,
            arrivals=sorted(at - world.began for at in world.upstream.arrivals()),
            callers=callers,
            changes=changes,
            changes_are_kept=changes.are_kept(living),
            counted=_counted(living[0], world.key, sum(callers.answered.values())),
            output=[gateway.output for gateway in world.gateways],
        )


def _start(stack: ExitStack, folder: Path, rate: int) -> World:
    data = short_folder()
    stack.callback(shutil.rmtree, data, ignore_errors=True)
    port = free_port()
    database = PostgresServer(data, port)
    database.start()
    stack.callback(database.stop)
    wire, last_wire = stack.enter_context(Wire(port)), stack.enter_context(Wire(port))
    upstream = stack.enter_context(Recorder())
    home = Home(folder, secrets.token_urlsafe(24))
    home.env |= {"HUBGATE_DATABASE_URL": database.url, "HUBGATE_SECRET_KEY": secrets.token_urlsafe(32)}
    limit = ("--requests-per-minute", str(rate))
    for added in (
        home.run("add", "writer", "--url", upstream.url, "--task", "completion", *limit),
        home.run("add", "changed", "--fake"),
    ):
        assert added.status == 0, added.err
    gateways = []
    for number, way in enumerate((wire.port, port, last_wire.port)):
        url = database.url.replace(f":{port}/", f":{way}/")
        env = {"HUBGATE_HOME": f"{folder}/{number}", "HUBGATE_DATABASE_URL": url}
        gateways.append(stack.enter_context(home.serve(**env)))
    return World(gateways, upstream, database, wire, last_wire, home.admin_key, rate)


def _counted(gateway: GatewayProcess, key: str, expected: int) -> int:
    """Calls by the usage report, once all gateways have stored theirs."""
    end = time.monotonic() + _FLUSH_SECONDS
    while True:
        rows = gateway.request("GET", "/api/usage?endpoint=writer", key=key).json()["rows"]
        counted: int = sum(row["requests"] for row in rows)
        if counted >= expected or time.monotonic() > end:
            return counted
        time.sleep(0.5)
