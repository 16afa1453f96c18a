"""What the gateway costs as installations grow: endpoints, keys, usage, vectors, idle connections, streams.

    make bench growth
    .venv/bin/python benchmarks/growth.py [--quick] [--shares 0.01,0.1,1] [--output FOLDER] [endpoints keys …]

For each of them, one gateway for each size runs at the same time; they take turns under load. Prints a table for each and
writes `growth.json` and `growth.svg` (cost against size).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from support import machine
from support.crowds import Crowd
from support.gateway import gateway
from support.homes import CHATS, fill
from support.leavers import written
from support.loopback import free_port, wait_for
from support.plot import svg
from support.processes import Process, end_on_sigterm
from support.table import show
from support.watch import cpu_ms, healthz_asked_all_the_time
from support.wrk import NEW, FailedLoad, drive

if TYPE_CHECKING:
    from support.gateway import Gate

LARGEST = {
    "endpoints": 10_000,
    "keys": 100_000,
    "usage": 1_000_000,
    "vectors": 1_000_000,
    "connections": 10_000,
    "streams": 10_000,
}
PAGES = {
    "/metrics": "/metrics",
    "/api/endpoints": "/api/endpoints",
    "/api/keys": "/api/keys",
    "/api/usage": "/api/usage?by=day",
    "a page of endpoints": "/api/endpoints?limit=100",
    "a page of keys": "/api/keys?limit=100",
}
TEXTS, CLIENTS = 8, 16
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "a chat, CPU µs": (
        "/v1/chat/completions",
        {"model": "c0", "messages": [{"role": "user", "content": "Hello"}]},
    ),
    "8 new texts, CPU µs": (
        "/v1/embeddings",
        {"model": "e0", "input": [f"The sentence {NEW} of a document, {n}." for n in range(TEXTS)]},
    ),
}
_SETTLED = 0.005
"""Seconds until the system has counted the CPU time of a reply."""
_OTHER_FILES = 1500
"""Of a gateway, besides those of its clients and their streams."""
_MODEL = Path(__file__).parent / "support" / "paced_model.py"
_OUTPUT = Path(__file__).parents[1] / "build" / "bench" / "growth"


class Plan(NamedTuple):
    """How long to measure."""

    rounds: int
    """Turns of each gateway, after one to warm up."""
    seconds: int
    """Of a turn."""


class Place(NamedTuple):
    """Where gateways run."""

    folder: Path
    core: int
    server: str
    """The URL of the model."""


class Subject(NamedTuple):
    """A gateway of one size."""

    size: int
    gate: Gate
    crowd: Crowd
    key: dict[str, str]
    figures: dict[str, float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Cost against size.")
    parser.add_argument("names", nargs="*", metavar="what", help=f"any of {', '.join(LARGEST)}; all if none")
    parser.add_argument("--shares", default="0.01,0.1,1", help="sizes, as parts of the largest")
    parser.add_argument(
        "--rounds", type=int, default=3, help="turns of each gateway under load, after a first one"
    )
    parser.add_argument("--seconds", type=int, default=2, help="of each turn")
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes, one turn of 1 second")
    parser.add_argument(
        "--output", type=Path, default=_OUTPUT, help="a folder for growth.json and growth.svg"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(LARGEST):
        parser.error(f"{' and '.join(sorted(unknown))}: choose from {', '.join(LARGEST)}")
    shares = sorted(float(share) * (0.1 if options.quick else 1) for share in options.shares.split(","))
    plan = Plan(1, 1) if options.quick else Plan(options.rounds, options.seconds)
    end_on_sigterm()
    machine.need("wrk", "taskset")
    cores, most_files = machine.two_cores(), _allow_files()
    results: dict[str, dict[int, dict[str, float]]] = {}
    failed = []
    with tempfile.TemporaryDirectory() as made:
        port = free_port()
        server = f"http://127.0.0.1:{port}"
        command = [sys.executable, str(_MODEL), str(port)]
        with Process(command, core=cores.load, output=Path(made) / "model.log") as model:
            wait_for(f"{server}/fixed-1/v1/models", model.check)
            for name in options.names or LARGEST:
                sizes = [max(1, round(LARGEST[name] * share)) for share in shares]
                sizes = _permitted(name, sizes, most_files)
                folder = Path(made) / name
                folder.mkdir()
                try:
                    results[name] = _measured(name, sizes, Place(folder, cores.measured, server), plan)
                except (SystemExit, OSError) as error:
                    failed.append(name)
                    print(f"{name}: not measured: {error!r}", flush=True)
                else:
                    _write(results, options.output)
    print(f"{options.output / 'growth.svg'}: the same as curves; growth.json beside it has the figures")
    if failed:
        sys.exit(f"Not measured: {', '.join(failed)}")


def _allow_files() -> int:
    """Raise the limit of open files of this process, and of those that it starts; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 1 << 20 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _permitted(name: str, sizes: list[int], most_files: int) -> list[int]:
    """Sizes that the limit of open files permits: a stream needs two of a gateway, and one of this process."""
    if name not in ("connections", "streams"):
        return sizes
    most = (most_files - _OTHER_FILES) // (2 if name == "streams" else 1) - (
        0 if name == "streams" else sum(sizes[:-1])
    )
    if most < sizes[-1]:
        print(
            f"\n{most:,} {name} instead of {sizes[-1]:,}: {most_files:,} files can be open (ulimit -Hn)",
            flush=True,
        )
    return [min(size, most) for size in sizes]


def _measured(name: str, sizes: list[int], place: Place, plan: Plan) -> dict[int, dict[str, float]]:
    """The figures of each size."""
    with ExitStack() as stack:
        subjects = [_start(stack, name, size, place) for size in sizes]
        for one in subjects:
            _occupy(name, one)
        for one in subjects:
            _weigh(one)
        for what in ROUTES:
            _keep_open(name, subjects)
            _load(what, subjects, place.folder / "body", plan)
        for one in subjects:
            _keep_open(name, [one])
            _read_pages(one)
            if one.crowd.lost:
                print(f"{name} {one.size:,}: the gateway closed {one.crowd.lost} connections", flush=True)
    figures = {one.size: one.figures for one in subjects}
    _print(name, figures)
    return figures


def _start(stack: ExitStack, name: str, size: int, place: Place) -> Subject:
    folder = place.folder / str(size)
    folder.mkdir()
    fill(
        folder / "home",
        place.server,
        endpoints=size if name == "endpoints" else 1,
        keys=size if name == "keys" else 0,
        usage_rows=size if name == "usage" else 0,
        vectors=size if name == "vectors" else 0,
    )
    clients = size if name in ("connections", "streams") else 0
    settings = {"HUBGATE_MAX_CONNECTIONS": str(1000 + clients)}
    began = time.perf_counter()
    gate = stack.enter_context(gateway(folder, place.core, settings=settings))
    figures = {"start, s": time.perf_counter() - began, "start, CPU s": gate.process.cpu_seconds()}
    return Subject(size, gate, stack.enter_context(Crowd()), gate.key(), figures)


def _occupy(name: str, one: Subject) -> None:
    """What keeps a gateway of this size busy, or has used it before."""
    port = urlsplit(one.gate.url).port
    assert port is not None
    if name == "endpoints":  # each has been called, so that all have metrics
        one.crowd.ask(
            port,
            (
                written(f"{one.gate.url}/v1/embeddings", one.key, {"model": f"e{n}", "input": "Text"})
                for n in range(one.size)
            ),
        )
    elif name == "connections":
        one.crowd.open(port, [_greeting(one.gate)] * one.size)
    elif name == "streams":
        chat = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
        requests = [
            written(f"{one.gate.url}/v1/chat/completions", one.key, {"model": f"c{n}", **chat})
            for n in range(CHATS)
        ]
        one.crowd.open(port, [requests[n % CHATS] for n in range(one.size)])


def _weigh(one: Subject) -> None:
    """Memory, and CPU time without calls."""
    seconds = 3.0
    spent, events = cpu_ms(one.gate.process.pid), one.crowd.events
    time.sleep(seconds)
    spent, events = cpu_ms(one.gate.process.pid) - spent, one.crowd.events - events
    one.figures["background, CPU %"] = spent / seconds / 10
    if events:
        one.figures["an event, CPU µs"] = spent * 1000 / events
    one.figures["memory, MB"] = one.gate.process.pss_mb()


def _keep_open(name: str, subjects: list[Subject]) -> None:
    """The gateway closes a connection that has been idle for 75 seconds."""
    if name == "connections":
        for one in subjects:
            one.crowd.ask_again(_greeting(one.gate))


def _greeting(gate: Gate) -> bytes:
    return f"GET /healthz HTTP/1.1\r\nHost: {urlsplit(gate.url).netloc}\r\n\r\n".encode()


def _load(what: str, subjects: list[Subject], body: Path, plan: Plan) -> None:
    """One route, all subjects in turns; background work is not counted."""
    route, form = ROUTES[what]
    body.write_text(json.dumps(form))
    costs: dict[int, list[float]] = {one.size: [] for one in subjects}
    for _ in range(plan.rounds + 1):
        for one in subjects:
            spent, began = cpu_ms(one.gate.process.pid), time.perf_counter()
            headers = {"Content-Type": "application/json", **one.key}
            try:
                load = drive(one.gate.url + route, headers, body, plan.seconds, CLIENTS)
            except FailedLoad as error:  # on a machine that is too slow for this size
                print(f"{what} at size {one.size:,}: a turn is not counted: {error}", flush=True)
                continue
            spent = cpu_ms(one.gate.process.pid) - spent
            background = one.figures["background, CPU %"] * 10 * (time.perf_counter() - began)
            costs[one.size].append((spent - background) * 1000 / load.requests)
    for one in subjects:
        if counted := costs[one.size][1:] or costs[one.size]:
            one.figures[what] = statistics.median(counted)


def _read_pages(one: Subject) -> None:
    """CPU time of each page, and the longest hold of the event loop meanwhile: as `/healthz` sees it."""
    pid, hold, during = one.gate.process.pid, 0.0, ""
    for what, path in PAGES.items():
        spents = []
        with healthz_asked_all_the_time(one.gate.url, pid, pause=0.005) as answers:
            for _ in range(3):
                spent = cpu_ms(pid)
                reply = one.gate.ask("GET", path)
                time.sleep(_SETTLED)
                spents.append(cpu_ms(pid) - spent)
                if reply.status != 200:
                    raise SystemExit(f"{path} answered {reply.status}: {reply.body[:500]!r}")
        one.figures[f"{what}, CPU ms"] = min(spents)
        longest = max(answer.spent for answer in answers)
        if longest > hold:
            hold, during = longest, what
    one.figures["longest hold, CPU ms"] = hold
    print(f"{one.size:,}: the longest hold was during {during}", flush=True)


def _print(name: str, figures: dict[int, dict[str, float]]) -> None:
    print()
    rows = dict.fromkeys(row for one in figures.values() for row in one)
    show(
        (name, *(f"{size:,}" for size in figures)),
        [(row, *(_shown(one.get(row)) for one in figures.values())) for row in rows],
    )


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _write(results: dict[str, dict[int, dict[str, float]]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("growth.json").write_text(json.dumps(results, indent=1))
    rows = list(dict.fromkeys(row for sizes in results.values() for one in sizes.values() for row in one))
    panels = {
        row: {
            f"{name} ({max(sizes):,})": [
                (size / max(sizes), max(one[row], 0.01)) for size, one in sizes.items() if row in one
            ]
            for name, sizes in results.items()
            if any(row in one for one in sizes.values())
        }
        for row in rows
    }
    folder.joinpath("growth.svg").write_text(svg(panels, "size, as part of the largest"))


if __name__ == "__main__":
    main()
