"""A gateway as an operator runs it: `hubgate serve`, with a home, a key file and an access log of its own."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from support.loopback import Reply, ask, free_port, wait_for
from support.processes import Process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROGRAM = Path(sys.executable).with_name("hubgate")
READY_MODEL = "all-minilm-l6-v2"
# The benchmarks ask for what the gateway costs, not for what its limiter holds back.
_NO_LIMIT = 1_000_000_000


class Gate:
    """A running gateway."""

    def __init__(self, url: str, process: Process, admin_key: str) -> None:
        self.url = url
        self.process = process
        self._admin = {"Authorization": f"Bearer {admin_key}"}

    def ask(self, method: str, path: str, body: object = None) -> Reply:
        """A request of the operator's."""
        return ask(method, self.url + path, body, headers=self._admin)

    def register(
        self, name: str, url: str, task: str = "text_embedding", requests_per_minute: int = _NO_LIMIT
    ) -> None:
        """Register a model server by its URL."""
        limit = {"requests_per_minute": requests_per_minute}
        form = {"name": name, "url": url, "task": task, "rate_limit": limit}
        reply = self.ask("POST", "/api/endpoints", form)
        if reply.status != 201:
            raise SystemExit(f"The gateway would not register {url}: {reply.status} {reply.body.decode()}")

    def key(self) -> dict[str, str]:
        """The header of a new key that may only infer, as an application has it."""
        made: str = self.ask("POST", "/api/keys", {"name": f"bench-{secrets.token_hex(4)}"}).json()["key"]
        return {"Authorization": f"Bearer {made}"}

    def ready(self) -> None:
        """Wait until the local model answers."""
        wait_for(f"{self.url}/readyz", self.process.check)
        reply = self.ask("POST", "/v1/embeddings", {"model": READY_MODEL, "input": "ready?"})
        if reply.status != 200:
            raise SystemExit(f"{READY_MODEL} does not answer: {reply.status} {reply.body.decode()}")

    def requests_in_flight(self) -> int:
        """How many it is answering, by its own count, without the one that asks."""
        for line in self.ask("GET", "/metrics").body.decode().splitlines():
            if line.startswith("hubgate_requests_in_flight "):
                return int(float(line.split()[1])) - 1
        raise SystemExit("/metrics does not tell hubgate_requests_in_flight")


@contextmanager
def gateway(
    folder: Path, core: int | None, *, cached: bool = True, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Gate]:
    """`hubgate serve`; on a new home it loads its ready model, `all-minilm-l6-v2`, in a process of its own.

    `settings` are environment variables.
    """
    folder.mkdir(exist_ok=True)
    port, admin_key = free_port(), secrets.token_urlsafe(24)
    env = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "HUBGATE_HOME": str(folder / "home"),
        "HUBGATE_PORT": str(port),
        "HUBGATE_ADMIN_KEY": admin_key,
        "HUBGATE_SECRET_KEY_FILE": str(folder / "secret.key"),
        "HF_HUB_OFFLINE": "1",
        **({} if cached else {"HUBGATE_CACHE_BYTES": "0"}),
        **settings,
    }
    with Process([str(PROGRAM), "serve"], core=core, output=folder / "access.log", env=env) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/healthz", process.check)
        yield Gate(url, process, admin_key)


@contextmanager
def bare_gateway(
    folder: Path, core: int, *, cached: bool = True, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Gate]:
    """A gateway without a local model: its first start makes one ready, which is removed for good."""
    with gateway(folder, core, settings=settings) as first:
        first.ready()
        first.ask("DELETE", f"/api/endpoints/{READY_MODEL}")
    with gateway(folder, core, cached=cached, settings=settings) as second:
        yield second
