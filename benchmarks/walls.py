"""Whether the gateway holds back what a model's server could do: texts a second through it and directly.

    python benchmarks/walls.py [--quick]

Clients ask for 8 texts at a time, or for one, each again as soon as it is answered, through the gateway and then directly, at servers
of different kinds (`support/paced_model.py`). "Directly" at a server that refuses requests is what it could do. The vectors have 8 dimensions, so that the gateway's CPU
time is not what is measured; where it is, the column "CPU" is 1: the gateway has one core. At last, 1,000 chats are begun at once, by one key.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from support import machine
from support.gateway import bare_gateway
from support.leavers import written
from support.loopback import ask, free_port, wait_for
from support.processes import Process
from support.table import show
from support.wrk import drive

if TYPE_CHECKING:
    from support.gateway import Gate

TEXTS, STREAMS = 8, 1000
_ROUTE = "/v1/embeddings"


class Case(NamedTuple):
    """A server, and how many clients it has."""

    path: str
    what: str
    clients: int
    texts: int = TEXTS
    """In a call."""
    refuses: bool = False

    @property
    def name(self) -> str:
        """Of its endpoint."""
        return self.path.replace("/", "-")


CASES = (
    Case("fixed-100", "100 ms", 256),
    Case("fixed-10", "10 ms", 12),
    Case("loaded", "50 ms, twice as long with 500 texts in it", 256),
    Case("serial", "one request after the other", 64),
    Case("full-20", "100 ms, 429 beyond 20 requests", 256, refuses=True),
    *(Case(f"fixed-100/one-{clients}", "100 ms", clients, texts=1) for clients in (64, 256, 1024, 4096)),
)
_MOST_CONNECTIONS = {"HUBGATE_MAX_CONNECTIONS": "8192"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Texts a second through the gateway and directly.")
    parser.add_argument("--quick", action="store_true", help="one turn of 3 seconds instead of three of 10")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(case.name for case in CASES)}, streams")
    options = parser.parse_args()
    machine.need("wrk", "taskset")
    turns, seconds = (1, 3) if options.quick else (3, 10)
    cores = machine.two_cores()
    with tempfile.TemporaryDirectory() as made:
        folder, port = Path(made), free_port()
        server = f"http://127.0.0.1:{port}"
        model = Path(__file__).parent / "support" / "paced_model.py"
        with (
            Process([sys.executable, str(model), str(port)], core=cores.load, output=folder / "model") as one,
            bare_gateway(
                folder / "gate", cores.measured, cached=False, settings=_MOST_CONNECTIONS
            ) as gateway,
        ):
            wait_for(f"{server}/fixed-1/v1/models", one.check)
            print(f"\nTexts a second; median of {turns}, after a warm-up of {seconds} s\n")
            show(
                (
                    "a request takes",
                    "clients",
                    "texts/call",
                    "direct",
                    "through",
                    "ratio",
                    "CPU",
                    "limit",
                    "texts/request",
                    "refused",
                ),
                [
                    _measured(case, server, gateway, folder / "body", (turns, seconds))
                    for case in CASES
                    if not options.names or case.name in options.names
                ],
            )
            if not options.names or "streams" in options.names:
                asyncio.run(_streams(server, gateway))


def _measured(case: Case, server: str, gateway: Gate, body: Path, length: tuple[int, int]) -> list[str]:
    turns, seconds = length
    url = f"{server}/{case.path}"
    gateway.register(case.name, url)
    texts = [f"The sentence of a document that has the number {number}." for number in range(case.texts)]
    body.write_text(json.dumps({"model": case.name, "input": texts}))
    key = {"Content-Type": "application/json", **gateway.key()}

    def rate(where: str) -> float:
        time.sleep(
            1
        )  # the server still works for the clients that the end of a turn cut off, and has no place for others
        load = drive(where + _ROUTE, key, body, seconds, case.clients)
        return load.requests * case.texts / load.seconds

    rate(gateway.url)  # the gateway learns what the server can do
    ask("POST", f"{server}/forget")
    spent, began = gateway.process.cpu_seconds(), time.perf_counter()
    through = [rate(gateway.url) for _ in range(turns)]
    cpu = (gateway.process.cpu_seconds() - spent) / (time.perf_counter() - began - turns)
    counts = ask("GET", f"{server}/counts").json()[case.path.partition("/")[0]]
    limit = gateway.ask("GET", f"/api/endpoints/{case.name}").json()["concurrency_limit"]
    # One that refuses could do 20 requests of 32 texts, all the time.
    direct = 20 * 32 / 0.1 if case.refuses else median(rate(url) for _ in range(turns))
    return [
        case.what,
        str(case.clients),
        str(case.texts),
        f"{direct:,.0f}",
        f"{median(through):,.0f}",
        f"{median(through) / direct:.2f}",
        f"{cpu:.2f}",
        str(limit),
        f"{counts['texts'] / counts['requests']:.0f}",
        f"{counts['refused']} of {counts['requests']}",
    ]


async def _streams(server: str, gateway: Gate) -> None:
    """Begin chats at once; each lasts for ten seconds."""
    await asyncio.to_thread(gateway.register, "chat", f"{server}/chat", "chat_completion")
    key = gateway.key()
    body: dict[str, Any] = {
        "model": "chat",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
    }
    request = written(f"{gateway.url}/v1/chat/completions", key, body)
    port, began = urlsplit(gateway.url).port, time.perf_counter()

    async def stream() -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        await reader.readuntil(b"data: ")
        first = time.perf_counter() - began
        await reader.readuntil(b"[DONE]")
        writer.close()
        return first

    firsts = sorted(await asyncio.gather(*(stream() for _ in range(STREAMS))))
    counts = ask("GET", f"{server}/counts").json()["chat"]
    print(
        f"{STREAMS} streams of 10 s, begun at once by one key: {counts['most_at_once']} ran at once;", end=" "
    )
    print(f"first token after {median(firsts):.1f} s (median), {firsts[-1]:.1f} s (last)")


if __name__ == "__main__":
    main()
