"""What sharing costs: latency and CPU time of a call, and the load of PostgreSQL.

    PYTHONPATH=tests:tests/support .venv/bin/python benchmarks/shared_cost.py

One gateway alone on SQLite and one that shares its rate limit through PostgreSQL take turns. Each has an endpoint for 60,000 requests a minute, which is never reached, so a call waits for nothing but the question for its slot.
In each turn: calls at 20 a second, one at a time; eight callers without a pause; nothing. The first turn does not count.
CPU time is that of the processes, so that other programs of the machine do not matter much. Latencies do suffer from them.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from gateway_process import GatewayProcess, Home
from postgres.server import PostgresServer, free_port, short_folder
from servers.callers import Callers
from servers.recorder import Recorder
from support.processes import end_on_sigterm, tree
from support.table import show

if TYPE_CHECKING:
    from collections.abc import Sequence

PACED, BUSY, IDLE = "20 a second", "8 callers", "no calls"
CALLERS = {PACED: 1, BUSY: 8, IDLE: 0}
PREDICTED = (1, 10, 100)
CONNECTIONS = 6
"""That a gateway has to PostgreSQL at most."""
CALLS = 100
"""A second at each gateway, for the prediction."""


class Seen(NamedTuple):
    """Totals at one moment, or in one turn."""

    gateway_cpu: float
    database_cpu: float
    transactions: float
    """That PostgreSQL committed in the gateway's database."""


@dataclass
class Subject:
    """A gateway, and what each of its turns cost."""

    name: str
    gateway: GatewayProcess
    key: str
    turns: dict[str, list[tuple[Seen, int, float]]] = field(default_factory=dict)
    """By the kind of load: what was used, calls, seconds."""
    latencies: list[Sequence[float]] = field(default_factory=list)

    def total(self, load: str, name: str) -> float:
        """The sum over all turns but the first."""
        return sum(float(getattr(used, name)) for used, _, _ in self.turns[load][1:])

    def calls(self, load: str) -> int:
        return sum(calls for _, calls, _ in self.turns[load][1:])

    def seconds(self, load: str) -> float:
        return sum(seconds for _, _, seconds in self.turns[load][1:])

    def cpu_of_call(self, load: str) -> float:
        """Microseconds."""
        return self.total(load, "gateway_cpu") / self.calls(load) * 1e6

    def latency(self, share: float) -> float:
        """Milliseconds: the median of the turns."""
        return median(sorted(turn)[int(len(turn) * share)] for turn in self.latencies[1:]) * 1000


class Servers:
    """PostgreSQL and the upstream."""

    def __init__(self, stack: ExitStack) -> None:
        data = short_folder()
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        self.database = PostgresServer(data, free_port())
        self.database.start()
        stack.callback(self.database.stop)
        self.upstream = stack.enter_context(Recorder())
        self._watch = stack.enter_context(psycopg.connect(self.database.url, autocommit=True))

    def seen(self, subject: Subject) -> Seen:
        """The totals now."""
        counted = "SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = %s"
        row = self._watch.execute(counted, (subject.name,)).fetchone()
        return Seen(
            cpu_seconds(subject.gateway.pid),
            cpu_seconds(self.database.pid),
            int(row[0] or 0) if row else 0,
        )


def cpu_seconds(root: int) -> float:
    """Of a process and its children that run, to the nanosecond."""
    threads = (thread for pid in tree(root) for thread in Path(f"/proc/{pid}/task").iterdir())
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def start(stack: ExitStack, folder: Path, servers: Servers, name: str) -> Subject:
    """A gateway of its own database."""
    home_folder = folder / name
    home_folder.mkdir()
    home = Home(home_folder, secrets.token_urlsafe(24))
    if name != "alone":
        with psycopg.connect(servers.database.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        url = servers.database.url.rpartition("/")[0] + f"/{name}"
        home.env |= {"HUBGATE_DATABASE_URL": url, "HUBGATE_SECRET_KEY": secrets.token_urlsafe(32)}
    added = home.run(
        *("add", "writer", "--url", servers.upstream.url, "--task", "completion"),
        *("--requests-per-minute", "60000"),
    )
    assert added.status == 0, added.err
    return Subject(name, stack.enter_context(home.serve()), home.admin_key)


def take_turn(subject: Subject, servers: Servers, load: str, key: str, seconds: float) -> None:
    """Measure one kind of load."""
    url = f"{subject.gateway.url}/_inference/completion/writer"
    callers = Callers(
        [url], key, {"input": "Once upon a time"}, [CALLERS[load]], [0.05 if load == PACED else 0.0]
    )
    before, began = servers.seen(subject), time.monotonic()
    if load == IDLE:
        time.sleep(seconds)
    else:
        callers.call_for(seconds)
    elapsed = time.monotonic() - began
    after = servers.seen(subject)
    assert not callers.failed, callers.failed
    used = Seen(*(late - early for early, late in zip(before, after, strict=True)))
    subject.turns.setdefault(load, []).append((used, callers.answered[0], elapsed))
    if load == PACED:
        subject.latencies.append(callers.latencies)


def report(subjects: Sequence[Subject]) -> None:
    """Print what sharing costs, and what it predicts."""
    alone = subjects[0]
    rows = []
    for each in subjects:
        row = [each.name]
        for share in (0.5, 0.99):
            row.append(f"{each.latency(share):.2f}")
            row.append(f"{each.latency(share) - alone.latency(share):+.2f}")
        for load in (PACED, BUSY):
            row.append(f"{each.cpu_of_call(load):.0f}")
            row.append(f"{each.cpu_of_call(load) / alone.cpu_of_call(load):.2f}")
        row.append(f"{each.total(IDLE, 'gateway_cpu') / each.seconds(IDLE):.1%}")
        rows.append(row)
    head = (
        "",
        "p50 ms",
        "added",
        "p99 ms",
        "added",
        "CPU µs, 20/s",
        "ratio",
        "CPU µs, busy",
        "ratio",
        "idle core",
    )
    show(head, rows)
    _predict(subjects)


def _predict(subjects: Sequence[Subject]) -> None:
    _, shared = subjects
    reads = shared.total(IDLE, "transactions") / shared.seconds(IDLE)
    idle = shared.total(IDLE, "database_cpu") / shared.seconds(IDLE)
    busy = (shared.total(BUSY, "database_cpu") - idle * shared.seconds(BUSY)) / shared.calls(BUSY)
    print(f"PostgreSQL: {idle * 1e6 / reads:.0f} µs of CPU time a transaction of an idle gateway;")
    print(f"    {busy * 1e6:.0f} µs a call, with its slot\n")
    rows = [
        (
            f"{count}",
            f"{count * reads:,.0f}",
            f"{count * (idle + CALLS * busy):.1%}",
            f"{CONNECTIONS * count}",
        )
        for count in PREDICTED
    ]
    print(f"Predicted from these, with {CALLS} calls a second at each gateway:\n")
    show(("gateways", "transactions/s", "of a core", "connections"), rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each kind of load in a turn")
    options = parser.parse_args()
    end_on_sigterm()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hg-", dir="/tmp")))
        servers = Servers(stack)
        subjects = [start(stack, folder, servers, name) for name in ("alone", "postgresql")]
        for _ in range(options.rounds + 1):
            for subject in subjects:
                for load in CALLERS:
                    take_turn(subject, servers, load, subject.key, options.seconds)
        report(subjects)


if __name__ == "__main__":
    main()
