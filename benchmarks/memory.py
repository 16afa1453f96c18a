"""G5: the memory of a gateway, and whether it grows when clients disconnect.

Memory is PSS, the process tree's own share of the pages it uses. Of the requests one in ten is left at a bad moment:
with half of it sent, as soon as it is sent, while the model works, and in the middle of a large reply.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from gateways.peers import litellm
from support import machine
from support.gateway import READY_MODEL, bare_gateway, gateway
from support.leavers import Requests, send, written
from support.nginx import LARGE, SMALL, proxy, upstream
from support.table import show
from support.wrk import CONNECTIONS

if TYPE_CHECKING:
    from support.gateway import Gate

_BLOCKS = 10
_WARM_UP_SECONDS = 65
"""Pools and caches fill, and the log of the rate limit, which has the requests of the last minute."""
_GOAL_MB, _STRETCH_MB = 5, 1
_TEXTS = [f"Text {n}: who leaves in the middle takes nothing along." for n in range(24)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="G5: memory, and growth while clients leave.")
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the requests: a look, not a measurement"
    )
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--with-litellm", action="store_true", help="install LiteLLM and weigh it too")
    options = parser.parse_args()
    count = options.requests // 10 if options.quick else options.requests
    machine.need("nginx", "taskset")
    cores = machine.two_cores()
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        folder = Path(made)
        behind, _ = stack.enter_context(upstream(folder / "upstream", cores.load))
        print("\nG5  memory (PSS of the process tree)\n")
        rows = _at_rest(folder, cores.measured, behind, with_litellm=options.with_litellm)
        show(("at rest", "MB"), [(name, f"{size:.1f}") for name, size in rows])
        # The vector cache grows by design, up to its bound: it is off, so that what still grows is a leak.
        with bare_gateway(folder / "gate", cores.measured, cached=False) as bare:
            _grow(bare, behind, count)


def _at_rest(folder: Path, core: int, behind: str, *, with_litellm: bool) -> list[tuple[str, float]]:
    """Each alone, so that no page is shared with another."""
    rows = []
    with proxy(folder / "nginx", core, behind) as (_, nginx):
        rows.append(("nginx, plain proxy", nginx.pss_mb()))
    with gateway(folder / "local", core) as local:
        local.ready()
        local.ask("POST", "/v1/embeddings", {"model": READY_MODEL, "input": _TEXTS[:8]})
        rows.append((f"gateway with {READY_MODEL} in it", local.process.pss_mb()))
    with bare_gateway(folder / "bare", core) as bare:
        bare.register("tei", f"{behind}/tei/{SMALL}")
        rows.append(("gateway without a local model", bare.process.pss_mb()))
    if with_litellm:
        with litellm(folder / "litellm", core, behind) as peer:
            rows.append(("LiteLLM, no database", peer.process.pss_mb()))
    return rows


def _grow(bare: Gate, behind: str, count: int) -> None:
    """Send the requests in blocks after a warm-up, and weigh after each."""
    bare.register("tei", f"{behind}/tei/{SMALL}")
    bare.register("large", f"{behind}/tei/{LARGE}")
    requests, block = _requests(bare), count // _BLOCKS
    start = time.monotonic()
    while time.monotonic() < start + _WARM_UP_SECONDS:
        _send(bare, requests, block)
    rows = [(0, bare.process.pss_mb(), bare.process.sockets())]
    start = time.monotonic()
    for number in range(1, _BLOCKS + 1):
        _send(bare, requests, block)
        rows.append((number * block, bare.process.pss_mb(), bare.process.sockets()))
    seconds = time.monotonic() - start
    show(
        ("requests after the warm-up", "MB", "sockets"),
        [(f"{done:,}", f"{size:.1f}", str(sockets)) for done, size, sockets in rows],
    )
    growth = rows[-1][1] - rows[0][1]
    print(
        f"Growth over {count:,} requests, one in ten left by its client: {growth:+.1f} MB "
        f"(goal: {_GOAL_MB}, stretch: {_STRETCH_MB}); sockets {rows[-1][2] - rows[0][2]:+d}; {seconds:.0f} s\n"
    )


def _send(bare: Gate, requests: Requests, count: int) -> None:
    uvloop.run(send(bare.url, requests, count, clients=CONNECTIONS))
    _settle(bare)


def _requests(bare: Gate) -> Requests:
    key = bare.key()

    def request(model: str, texts: list[str]) -> bytes:
        body = {"model": model, "input": texts, "encoding_format": "float"}
        return written(f"{bare.url}/v1/embeddings", key, body)

    return Requests(request("tei", _TEXTS[:1]), request("tei", ["Text slow"]), request("large", _TEXTS))


def _settle(bare: Gate) -> None:
    """Wait until nothing is in flight."""
    until = time.monotonic() + 30
    while (left := bare.requests_in_flight()) and time.monotonic() < until:
        time.sleep(0.05)
    if left:
        print(f"!! {left} requests are still in flight 30 s after their clients left", flush=True)


if __name__ == "__main__":
    main()
