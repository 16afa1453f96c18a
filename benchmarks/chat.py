"""G2 and G4: the CPU cost of a small chat and of a stream of 200 events, compared with nginx.

As for G1, the gateway and nginx each run on one core, wrk and the canned upstream share the other, and all take
turns. What a stream adds before its first token is asked one after the other, with and without the gateway. At the end
come streams of which each event is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from support import machine
from support.gateway import bare_gateway
from support.leavers import written
from support.loopback import ask
from support.nginx import proxy, upstream
from support.table import show
from support.turns import asked_turns
from support.wrk import CONNECTIONS, Load, drive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from support.processes import Process

EVENTS = 200
"""Of a stream, without its [DONE]."""
_STREAMS = 100
CHAT = [
    {
        "role": "user",
        "content": "Tell me in a sentence or two what a gateway between applications and models is good for, please.",
    }
]
_ROUTE = "/v1/chat/completions"


@dataclass(slots=True)
class Subject:
    """One way to the model."""

    name: str
    process: Process
    url: str
    model: str
    headers: Mapping[str, str]
    cost: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    """CPU µs of each turn, of streams and of whole replies."""
    loads: dict[bool, list[Load]] = field(default_factory=lambda: {True: [], False: []})
    first: list[float] = field(default_factory=list)
    """Milliseconds until the first event."""

    def body(self, *, stream: bool) -> dict[str, object]:
        """A small chat."""
        return {"model": self.model, "messages": CHAT, "stream": stream}

    def check(self) -> None:
        """Ask once each: the text and all events must be there."""
        whole = ask("POST", self.url, self.body(stream=False), headers=self.headers)
        if whole.status != 200 or not whole.json()["choices"][0]["message"]["content"]:
            raise SystemExit(f"{self.name}: {whole.status} {whole.body[:500]!r}")
        events = ask("POST", self.url, self.body(stream=True), headers=self.headers).body.count(b"data: {")
        if events < EVENTS - 1:  # who asks for no usage need not get its event
            raise SystemExit(f"{self.name}: {events} events of {EVENTS}")

    def measure(self, file: Path, seconds: int) -> None:
        """A turn of whole replies, and one of streams."""
        for stream in (False, True):
            file.write_text(json.dumps(self.body(stream=stream)))
            connections = _STREAMS if stream else CONNECTIONS
            before = self.process.cpu_seconds()
            headers = {"Content-Type": "application/json", **self.headers}
            load = drive(self.url, headers, file, seconds, connections)
            self.cost[stream].append((self.process.cpu_seconds() - before) / load.requests * 1e6)
            self.loads[stream].append(load)

    def request(self, *, stream: bool) -> bytes:
        """The same, as it goes over the wire."""
        return written(self.url, self.headers, self.body(stream=stream))


def main() -> None:
    """Measure and print."""
    turns = asked_turns("G2 and G4: chat, whole and streamed.")
    machine.need("wrk", "nginx", "taskset")
    cores = machine.two_cores()
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        folder = Path(made)
        behind, model = stack.enter_context(upstream(folder / "upstream", cores.load))
        through, nginx = stack.enter_context(proxy(folder / "nginx", cores.measured, behind))
        gateway = stack.enter_context(bare_gateway(folder / "gate", cores.measured))
        gateway.register("llm", f"{behind}/llm", "chat_completion")
        subjects = [
            Subject("upstream itself", model, f"{behind}/llm{_ROUTE}", "canned", {}),
            Subject("nginx", nginx, f"{through}/llm{_ROUTE}", "canned", {}),
            Subject("hubgate", gateway.process, gateway.url + _ROUTE, "llm", gateway.key()),
        ]
        for subject in subjects:
            subject.check()
        for number in range(turns.rounds + 1):
            for subject in subjects:
                subject.measure(folder / "body.json", turns.seconds if number else 1)
        asyncio.run(_first_events(subjects, 50 if turns.quick else 300))
        lost = asyncio.run(_lost_events(subjects[2], 100))
        _print(subjects, lost)


async def _first_events(subjects: Sequence[Subject], times: int) -> None:
    """One after the other, so that a slow moment is slow for all."""
    for _ in range(times):
        for subject in subjects:
            reader, writer = await _open(subject.url)
            began = time.perf_counter()
            writer.write(subject.request(stream=True))
            await reader.readuntil(b"data: {")
            subject.first.append((time.perf_counter() - began) * 1000)
            writer.transport.abort()


async def _lost_events(subject: Subject, streams: int) -> int:
    """Events that did not arrive, of streams at once that are read to their end."""

    async def one() -> int:
        reader, writer = await _open(subject.url)
        writer.write(subject.request(stream=True).replace(b"Host:", b"Connection: close\r\nHost:", 1))
        body = await reader.read()
        writer.transport.abort()
        return body.count(b"data: {")

    arrived = await asyncio.gather(*(one() for _ in range(streams)))
    return sum((EVENTS - 1) - events for events in arrived)  # the usage, which nobody asked for, is no loss


async def _open(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", urlsplit(url).port)


def _print(subjects: Sequence[Subject], lost: int) -> None:
    nginx, hubgate = subjects[1], subjects[2]
    for stream, title in (
        (False, "G2  CPU time of a small chat"),
        (True, f"G4  {_STREAMS} streams of {EVENTS} events"),
    ):
        print(f"\n{title}, medians of the rounds (the first left out)\n")
        rows = []
        for subject in subjects:
            cost, loads = subject.cost[stream][1:], subject.loads[stream][1:]
            rate = median(load.requests / load.seconds for load in loads)
            rows.append(
                (
                    subject.name,
                    f"{median(cost):,.1f}",
                    f"{min(cost):,.0f}-{max(cost):,.0f}",
                    f"{median(cost) / median(nginx.cost[stream][1:]):.1f}",
                    f"{rate:,.0f}",
                    f"{rate * EVENTS:,.0f}" if stream else "",
                    f"{median(load.p50_ms for load in loads):.1f}",
                )
            )
        show(("", "CPU µs", "range", "to nginx", "requests/s", "events/s", "p50 ms"), rows)
    added = median(hubgate.first) - median(subjects[0].first)
    worst = quantiles(hubgate.first, n=20)[-1] - quantiles(subjects[0].first, n=20)[-1]
    print(
        f"time to the first event: {added:.2f} ms more than without the gateway (p95 {worst:.2f}); goal 1 ms"
    )
    print(f"events lost: {lost} (goal 0)")
    print()


if __name__ == "__main__":
    main()
