"""Memory after failed exchanges, and whether the gateway responds meanwhile.

200 chats of 8 MB that fail (closed, cut, hanging, refused), 20 replies of 300 MiB, plain and compressed, and 8 replies
of the largest legal size at once. After each the resident memory must be within 60 MB of where it began, and
`/healthz`, asked all the time from a process of its own, must have answered within 250 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from support import machine
from support.gateway import bare_gateway
from support.loopback import free_port, wait_for
from support.processes import Process
from support.table import show
from support.watch import healthz_asked_all_the_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.gateway import Gate

_MIB = 1 << 20
_GOAL_MB, _GOAL_MS = 60, 250
_KINDS = ("close", "cut", "hang", "refuse")
_CLIENTS = 12
_IN_A_ROW = 4
"""Failures between two calls that go well: with one more the circuit breaker would keep the next call away."""
_SERVER = Path(__file__).parent / "support" / "failing_server.py"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What failed exchanges leave behind.")
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--calls", type=int, default=200, help="chats of 8 MB that fail")
    parser.add_argument("--replies", type=int, default=20, help="replies of 300 MiB, of each kind")
    parser.add_argument("--legal", type=int, default=16, help="MiB of the largest legal reply")
    options = parser.parse_args()
    share = 10 if options.quick else 1
    cores = machine.two_cores()
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        folder, port = Path(made), free_port()
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, str(_SERVER), str(port)]
        server = stack.enter_context(Process(command, core=cores.load, output=folder / "server.log"))
        wait_for(f"{url}/ok", server.check)
        gateway = stack.enter_context(bare_gateway(folder / "gate", cores.measured))
        trial = _Trial(gateway, url)
        trial.fail(_CLIENTS, size=1000)  # fills pools and caches
        rows = [
            trial.watch(
                "chats of 8 MB that fail", lambda: trial.fail(options.calls // share, size=8_000_000)
            ),
            trial.watch("replies of 300 MiB, plain", lambda: trial.flood("plain", options.replies // share)),
            trial.watch("replies of 300 MiB, gzip", lambda: trial.flood("gzip", options.replies // share)),
            trial.watch("the largest legal replies, 8 at once", lambda: trial.largest(options.legal)),
        ]
    print("\nFailed exchanges: resident memory, and the longest answer of /healthz meanwhile\n")
    show(
        ("", "MB before", "peak", "after", "/healthz ms", "CPU ms meanwhile"),
        [(what, *(f"{figure:.0f}" for figure in figures)) for what, *figures in rows],
    )
    grown = max(row[3] - row[1] for row in rows)
    waited, spent = (max(row[column] for row in rows) for column in (4, 5))
    print(
        f"Growth {grown:+.0f} MB (goal: {_GOAL_MB}); /healthz {waited:.0f} ms, {spent:.0f} ms of CPU time "
        f"(goal: {_GOAL_MS})\n"
    )


class _Trial:
    """Calls to a gateway whose model server fails."""

    def __init__(self, gateway: Gate, server: str) -> None:
        self._gate = gateway
        self._server = server
        self._key = gateway.key()
        self._models: set[str] = set()

    def watch(self, what: str, work: Callable[[], None]) -> tuple[str, float, float, float, float, float]:
        """Do it; what it was, the memory before, at the most and after, and the longest answer of /healthz.

        The last figure is the most CPU time that the gateway spent while /healthz waited: how long it would have waited
        with a processor to itself.
        """
        before = self._memory("VmRSS")
        Path(f"/proc/{self._gate.process.pid}/clear_refs").write_text("5")  # VmHWM begins here
        with healthz_asked_all_the_time(self._gate.url, self._gate.process.pid) as times:
            work()
            time.sleep(1)
        waited, spent = (max(column) for column in zip(*times, strict=True))
        return what, before, self._memory("VmHWM"), self._memory("VmRSS"), waited, spent

    def fail(self, calls: int, *, size: int) -> None:
        """Chats of so many bytes, in turns to servers that fail each in its way."""
        models = [
            self._model(f"{kind}/{n}", f"{kind}-{n}")
            for kind in _KINDS
            for n in range(_CLIENTS // len(_KINDS))
        ]
        turns = list(islice(cycle(models), calls))
        body = _chat("x" * size)
        with ThreadPoolExecutor(_CLIENTS) as clients:
            list(clients.map(lambda model: self._fail_in_turns(model, turns.count(model), body), models))

    def _fail_in_turns(self, model: str, calls: int, body: bytes) -> None:
        for number in range(calls):
            if number % _IN_A_ROW == 0:
                self._ask(model, _chat("well"), 200)
            self._ask(model, body, None)

    def flood(self, kind: str, replies: int) -> None:
        """Replies that are too large, one after the other."""
        model = self._model(f"{kind}/{300 * _MIB}", kind)
        for _ in range(replies):
            self._ask(model, _chat("flood"), None)

    def largest(self, mib: int) -> None:
        """Eight replies of a size that is allowed, at once."""
        model = self._model(f"legal/{mib * _MIB}", "legal")
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(lambda _: self._ask(model, _chat("all"), 200), range(8)))

    def _model(self, path: str, name: str) -> str:
        if name not in self._models:
            form = {
                "name": name,
                "url": f"{self._server}/{path}",
                "task": "chat_completion",
                "timeout": 0.5 if "hang" in name else 60,
            }
            limit = {"requests_per_minute": 1_000_000_000}
            reply = self._gate.ask("POST", "/api/endpoints", form | {"rate_limit": limit})
            if reply.status != 201:
                raise SystemExit(
                    f"The gateway would not register {path}: {reply.status} {reply.body.decode()}"
                )
            self._models.add(name)
        return name

    def _ask(self, model: str, body: bytes, status: int | None) -> None:
        """A call that must be answered with this status; without one, with any error."""
        body = b'{"model":"%b",%b' % (model.encode(), body[1:])
        connection = http.client.HTTPConnection(urlsplit(self._gate.url).netloc, timeout=120)
        with contextlib.closing(connection):
            connection.request(
                "POST", "/v1/chat/completions", body, {"Content-Type": "application/json", **self._key}
            )
            reply = connection.getresponse()
            while reply.read(_MIB):
                pass
        if reply.status != status if status else reply.status < 400:
            raise SystemExit(f"{model} answered {reply.status}")

    def _memory(self, what: str) -> float:
        """VmRSS or VmHWM, in MB."""
        lines = Path(f"/proc/{self._gate.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) / 1000


def _chat(text: str) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}]}).encode()


if __name__ == "__main__":
    main()
