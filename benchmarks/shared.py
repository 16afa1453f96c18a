"""One rate limit for three gateways: what a model's server receives while gateways, Valkey or PostgreSQL fail.

    PYTHONPATH=tests:tests/support .venv/bin/python benchmarks/shared.py rate             # nothing happens
    PYTHONPATH=tests:tests/support .venv/bin/python benchmarks/shared.py --by postgresql kill-database

Three `hubgate serve` processes, a real PostgreSQL and a real Valkey from wheels, and a look-alike of TGI that records when
requests arrive. Six callers at each gateway always wait. Prints the most requests in any 60 seconds, the share of the limit
that was used once the start is over, what each gateway sent, failed calls, and the requests in each 10 seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from gateway_process import GatewayProcess, Home
from lookalikes import LookAlike, lookalike
from postgres.server import PostgresServer, free_port, short_folder
from servers.valkey import ValkeyServer
from servers.wire import Wire
from slow_server import max_per_minute

if TYPE_CHECKING:
    from collections.abc import Callable

GATEWAYS = 3
CALLERS = 6
CAREFUL = 66.0
"""Seconds after the start for which the limit is not used fully."""
KEY = secrets.token_urlsafe(24)
BODY = {"input": "Once upon a time"}


@dataclass
class Cluster:
    """The gateways and the servers behind them."""

    gateways: list[GatewayProcess]
    upstream: LookAlike
    database: PostgresServer
    valkey: ValkeyServer
    wire: Wire
    """Between the first gateway and Valkey."""
    began: float = 0.0
    answered: Counter[int] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def at(self, seconds: float) -> None:
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))


def nothing(_: Cluster) -> None:
    """Nothing happens."""


def kill_gateway(cluster: Cluster) -> None:
    cluster.at(30)
    cluster.gateways[0].signal(signal.SIGKILL)


def stop_gateway(cluster: Cluster) -> None:
    cluster.at(30)
    cluster.gateways[0].signal(signal.SIGSTOP)
    cluster.at(40)
    cluster.gateways[0].signal(signal.SIGCONT)


def kill_valkey(cluster: Cluster) -> None:
    cluster.at(30)
    cluster.valkey.kill()
    cluster.at(45)
    cluster.valkey.start()


def freeze_valkey(cluster: Cluster) -> None:
    cluster.at(30)
    cluster.valkey.freeze()
    cluster.at(38)
    cluster.valkey.thaw()


def cut_wire(cluster: Cluster) -> None:
    """The first gateway cannot reach Valkey for 20 seconds; the others can."""
    cluster.at(30)
    cluster.wire.freeze()
    cluster.at(50)
    cluster.wire.cut()
    cluster.wire.mend()


def kill_database(cluster: Cluster) -> None:
    cluster.at(20)
    cluster.database.kill()
    cluster.at(60)
    cluster.database.start()


SCENARIOS: dict[str, Callable[[Cluster], None]] = {
    "rate": nothing,
    "kill-gateway": kill_gateway,
    "stop-gateway": stop_gateway,
    "kill-valkey": kill_valkey,
    "freeze-valkey": freeze_valkey,
    "cut-wire": cut_wire,
    "kill-database": kill_database,
    "latency": nothing,
}


async def call(cluster: Cluster, session: aiohttp.ClientSession, number: int) -> None:
    url = f"{cluster.gateways[number].url}/_inference/completion/writer?timeout=30s"
    before = time.monotonic()
    try:
        async with session.post(url, json=BODY) as reply:
            await reply.read()
            if reply.status == 200:
                cluster.answered[number] += 1
                cluster.latencies.append(time.monotonic() - before)
                return
            cluster.failed[f"gateway {number}: {reply.status}"] += 1
    except (aiohttp.ClientError, TimeoutError) as error:
        cluster.failed[f"gateway {number}: {type(error).__name__}"] += 1
    await asyncio.sleep(1.0)


async def saturate(cluster: Cluster, seconds: float, every: float) -> None:
    """Callers that always wait; or, with `every`, one call at a time in these intervals."""
    until = cluster.began + seconds

    async def ask(number: int) -> None:
        while time.monotonic() < until:
            await call(cluster, session, number)
            await asyncio.sleep(every)

    headers = {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(40)) as session:
        callers = 1 if every else CALLERS
        asking = [
            asyncio.create_task(ask(number))
            for number in range(len(cluster.gateways))
            for _ in range(callers)
        ]
        await asyncio.wait(asking, timeout=seconds)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def start(stack: ExitStack, folder: Path, rate: int, by: str, gateways: int) -> Cluster:
    data = short_folder()
    stack.callback(shutil.rmtree, data, ignore_errors=True)
    database = PostgresServer(data, free_port())
    database.start()
    stack.callback(database.stop)
    valkey = ValkeyServer(folder)
    valkey.start()
    stack.callback(valkey.kill)
    wire = stack.enter_context(Wire(valkey.port))
    upstream = stack.enter_context(lookalike("tgi", seconds=0.02))
    home = Home(folder, KEY)
    if by != "none":
        home.env |= {"HUBGATE_DATABASE_URL": database.url, "HUBGATE_SECRET_KEY": secrets.token_urlsafe(32)}
    added = home.run(
        *("add", "writer", "--url", upstream.url, "--task", "completion"),
        *("--requests-per-minute", str(rate)),
    )
    assert added.status == 0, added.err
    processes = []
    for number in range(gateways):
        env = {"HUBGATE_HOME": f"{folder}/{number}"} if by != "none" else {}
        if by == "valkey":
            env["HUBGATE_VALKEY_URL"] = f"valkey://127.0.0.1:{valkey.port if number else wire.port}/0"
        processes.append(home.serve(**env))
        stack.push(processes[-1])
    with ThreadPoolExecutor(gateways) as threads:
        list(threads.map(GatewayProcess.__enter__, processes))
    return Cluster(processes, upstream, database, valkey, wire)


def report(cluster: Cluster, rate: int, seconds: float) -> None:
    arrivals = sorted(post.at for post in cluster.upstream.posts)
    began = arrivals[0]
    late = [at for at in arrivals if CAREFUL <= at - began < seconds - 3]
    gaps = [(after - before, before - began) for before, after in pairwise(arrivals)]
    gap, since = max(gaps)
    print(f"most in any 60 s      {max_per_minute(arrivals)} of {rate}")
    if seconds > CAREFUL + 10:
        print(f"used after {CAREFUL:g} s     {len(late) / (seconds - 3 - CAREFUL) * 60 / rate:.1%}")
    print(f"answered by gateways  {[cluster.answered[number] for number in range(len(cluster.gateways))]}")
    print(f"failed calls          {dict(cluster.failed) or 0}")
    print(f"longest gap           {gap:.1f} s, at {since:.0f} s")
    tens = Counter(int((at - began) // 10) for at in arrivals)
    print(f"in each 10 s          {[tens[number] for number in range(max(tens) + 1)]}")
    for number, gateway in enumerate(cluster.gateways):
        for line in gateway.output.splitlines():
            if "shared" in line or "alone" in line:
                print(f"  gateway {number}: {line[:150]}")


def measure_latency(cluster: Cluster) -> None:
    times = sorted(cluster.latencies)
    print(f"p50 {statistics.median(times) * 1000:.2f} ms, p99 {times[int(len(times) * 0.99)] * 1000:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--rate", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=115.0)
    parser.add_argument("--by", choices=("valkey", "postgresql", "none"), default="valkey")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the processes end, too
    is_latency = options.scenario == "latency"
    gateways = 1 if is_latency else GATEWAYS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hg-", dir="/tmp")))
        cluster = start(stack, folder, 60_000 if is_latency else options.rate, options.by, gateways)
        cluster.upstream.requests.clear()  # what the registration asked is no call
        cluster.began = time.monotonic()
        with asyncio.Runner() as runner:
            saturating = saturate(cluster, options.seconds, 0.05 if is_latency else 0.0)
            happening = asyncio.to_thread(SCENARIOS[options.scenario], cluster)

            async def both() -> None:
                await asyncio.gather(saturating, happening)

            runner.run(both())
        print(f"{options.scenario}, by {options.by}, {options.seconds:g} s")
        if is_latency:
            measure_latency(cluster)
        else:
            report(cluster, options.rate, options.seconds)


if __name__ == "__main__":
    main()
