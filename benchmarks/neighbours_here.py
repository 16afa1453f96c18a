"""The latency of a short call to a local model while another key keeps the model busy.

    python benchmarks/neighbours_here.py [--quick]

One gateway as an operator runs it (`hubgate serve`) with its ready model, all-MiniLM-L6-v2, on all cores and without the
cache. One key asks for the vector of three words again and again: alone, while another key has a text of 30 MB
embedded, and while `hubgate job run` works with its defaults. The median of each is compared with the median alone.
The job runs once without neighbours, too: its rows a second must not suffer from the rule that it waits for others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from support.ended import run
from support.gateway import READY_MODEL, gateway
from support.lengths import workloads
from support.loopback import Reply, ask
from support.table import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from support.gateway import Gate

MEGABYTES = 30
PAUSE = 0.05
"""Seconds between two short calls: the caller is a person or an agent, not a load generator."""
GOAL_LARGE, GOAL_BULK = 0.3, 0.1


class Case(NamedTuple):
    """How long the short calls took, in seconds, beside what."""

    name: str
    seconds: list[float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Short calls to a local model beside heavy ones.")
    parser.add_argument("--quick", action="store_true", help="a quarter of the calls and rows")
    options = parser.parse_args()
    calls, rows = (40, 2_000) if options.quick else (160, 8_000)
    print(f"\nNeighbours of a local model; load average {os.getloadavg()[0]:.1f}\n")
    with tempfile.TemporaryDirectory() as made, gateway(Path(made), None, cached=False) as served:
        served.ready()
        folder, asker, other = Path(made), Asker(served), served.key()
        write_input(folder / "in.jsonl", rows)
        asker.calls(5)  # a warm-up
        cases = [Case("alone", asker.calls(calls))]
        with repeated(lambda: embed_large(served, other)) as large:
            cases.append(Case(f"beside a text of {MEGABYTES} MB", asker.calls(calls)))
        alone = job(folder, "alone")
        with repeated(lambda: job(folder, "beside")) as beside:
            time.sleep(2)  # the job has started, and its first requests are in the queue
            cases.append(Case("beside a bulk job", asker.calls(calls)))
    report(cases)
    print(f"A text of {MEGABYTES} MB: {statistics.median(large):.1f} s each, {len(large)} times.")
    print(
        f"The job: {rows / alone:,.0f} rows/s alone, {rows / statistics.median(beside):,.0f} beside the calls."
    )
    print(f"Goals: medians under {GOAL_LARGE * 1e3:.0f} and {GOAL_BULK * 1e3:.0f} ms.")


class Asker:
    """A key of its own, which asks for the vector of three words."""

    def __init__(self, served: Gate) -> None:
        self._gate = served
        self._key = served.key()

    def calls(self, count: int) -> list[float]:
        """How long each of so many calls took, one after the other."""
        return [self._once(f"harbour market {number}") for number in range(count)]

    def _once(self, text: str) -> float:
        time.sleep(PAUSE)
        start = time.perf_counter()
        checked(embed(self._gate, self._key, text))
        return time.perf_counter() - start


def embed(served: Gate, key: Mapping[str, str], text: str) -> Reply:
    """Embed one text."""
    form = {"model": READY_MODEL, "input": text}
    return ask("POST", f"{served.url}/v1/embeddings", form, headers=key, timeout=600)


def embed_large(served: Gate, key: Mapping[str, str]) -> float:
    """Embed one large text; the seconds it took."""
    start = time.perf_counter()
    checked(embed(served, key, "word " * (MEGABYTES * 200_000)))
    return time.perf_counter() - start


def checked(reply: Reply) -> None:
    """Stop here if the gateway did not answer with vectors."""
    if reply.status != 200:
        raise SystemExit(f"The gateway answered {reply.status}: {reply.body[:500].decode(errors='replace')}")


def write_input(path: Path, rows: int) -> None:
    """Texts of all lengths, passages among them."""
    texts = workloads(5, rows / 144)["mixed"]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[:rows]), "utf-8")


def job(folder: Path, name: str) -> float:
    """Embed the input as a bulk job with its defaults; the seconds it took."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("HUBGATE_")}
    output = folder / f"{name}.parquet"
    command = [sys.executable, "-m", "hubgate", "job", "run", str(folder / "in.jsonl"), str(output)]
    command += ["--endpoint", READY_MODEL, "--overwrite"]
    return run(command, output=folder / "job.log", env=env | {"HUBGATE_HOME": str(folder / "home")}).seconds


@contextmanager
def repeated(work: Callable[[], float]) -> Iterator[list[float]]:
    """Do some work again and again beside the body of a `with`; how long each round took."""
    seconds: list[float] = []
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            seconds.append(work())

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield seconds
    finally:
        stop.set()
        thread.join()


def report(cases: list[Case]) -> None:
    """Print the table."""
    alone = statistics.median(cases[0].seconds)
    rows = []
    for name, seconds in cases:
        median = statistics.median(seconds)
        figures = (median, statistics.quantiles(seconds, n=20)[-1], max(seconds))
        rows.append((name, *(f"{figure * 1e3:.0f}" for figure in figures), f"{median / alone:.1f}"))
    show(("a short call", "median, ms", "p95, ms", "slowest, ms", "median to alone"), rows)


if __name__ == "__main__":
    main()
