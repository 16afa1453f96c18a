"""`hubgate serve`: the gateway as a process."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

import uvicorn

from hubgate import __version__
from hubgate.cli.server.connection import EXCESS_CONNECTIONS, Connection
from hubgate.cli.server.draining import DrainingServer
from hubgate.cli.server.process import allow_open_files, log_to_stderr, return_large_blocks, tune_gc
from hubgate.core.chunking import icu_warning
from hubgate.settings import LOOPBACK, InvalidSetting
from hubgate.store.lock import HomeLock
from hubgate.wiring import READY_ENDPOINT, open_application

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubgate.settings import Settings
    from hubgate.wiring import Application

_DRAIN_SECONDS = 30
_KEEP_ALIVE_SECONDS = 75
"""Longer than common clients and load balancers keep an idle connection: the side that closes first may cut off a request."""

_log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InvalidSetting: the address is invalid or in use.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server = socket.create_server(address[:2], family=family, backlog=2048)
    except UnicodeError:  # a label of the host name is empty, too long, or not text
        raise InvalidSetting(f"HUBGATE_HOST must be an address of this machine, not {host[:60]!a}.") from None
    except OSError as error:
        # The message names the address already.
        reason, _, _ = (error.strerror or str(error)).partition(" (while")
        raise InvalidSetting(
            f"Cannot listen on {host} port {port}: {reason}. "
            "Stop the process that uses it, or set HUBGATE_HOST and HUBGATE_PORT (make serve PORT=…)."
        ) from None
    server.setblocking(False)
    return server


async def serve(
    settings: Settings,
    *,
    started: Callable[[str, Application, uvicorn.Server], None],
    with_ready_endpoint: bool = True,
) -> None:
    """Serve until stopped. `started` is called with the gateway's URL once requests are accepted."""
    with HomeLock(settings.home) as lock, listen(settings.host, settings.port) as sock:
        async with open_application(settings, serving=True) as gate:
            # A local model belongs to one machine, so a shared database starts without it.
            ready = READY_ENDPOINT if with_ready_endpoint and not settings.database_url else None
            # Models that are unloaded when idle are loaded on their first request.
            await gate.gateway.start(ready, load_models=not settings.local_idle_seconds)
            url = _url(sock)
            gate.access.admit_cli(lock.announce(url))
            config = uvicorn.Config(
                gate.app,
                http=Connection,
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=settings.trusted_proxies,
                limit_concurrency=settings.max_connections,  # as `Connection` reads it
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
            server = DrainingServer(config, gate.gateway, settings.drain_delay)
            background = {asyncio.create_task(run()) for run in gate.background}
            started(url, gate, server)
            try:
                await server.serve(sockets=[sock])
            finally:
                for task in background:
                    task.cancel()
                await asyncio.wait(background)


def _url(sock: socket.socket) -> str:
    """The gateway's URL on this machine; a wildcard address cannot be connected to."""
    host, port = sock.getsockname()[:2]
    host = LOOPBACK.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(settings: Settings) -> None:
    """Serve in this process until Ctrl-C or SIGTERM."""
    log_to_stderr(settings.log_level)
    if warning := icu_warning():
        _log.warning(warning)
    allow_open_files(settings.max_connections + EXCESS_CONNECTIONS)
    greeting: list[asyncio.Task[None]] = []

    def started(url: str, gate: Application, _: uvicorn.Server) -> None:
        tune_gc()
        return_large_blocks()
        greeting.append(asyncio.create_task(_greet(url, gate, everywhere=settings.host in LOOPBACK)))

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings, started=started))
    print("hubgate has stopped.", flush=True)


async def _greet(url: str, gate: Application, *, everywhere: bool) -> None:
    others = ", and on every other address of this machine" if everywhere else ""
    print(f"hubgate {__version__} serves on {url}{others}", flush=True)
    key = gate.first_admin_key
    if key:
        print(f"\nYour admin key, shown only this once:\n\n    {key}\n", flush=True)
    await gate.gateway.startup.settled()
    names = [endpoint.name for endpoint in gate.gateway.registry.endpoints()]
    if key and READY_ENDPOINT.name in names:
        print(
            f"{READY_ENDPOINT.name} is ready. Try it:\n\n"
            f"    curl -s {url}/v1/embeddings -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' "
            f"""-d '{{"model": "{READY_ENDPOINT.name}", "input": "A gate for open models"}}'\n""",
            flush=True,
        )
    elif names:
        print(f"Endpoints: {', '.join(names)}", flush=True)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # not available on this platform: asyncio's own loop works too, slower
        return asyncio.new_event_loop
    return uvloop.new_event_loop
