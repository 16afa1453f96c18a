"""`hubgate serve`: the gateway as a process."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, cast

import uvicorn

from hubgate import __version__
from hubgate.cli.server.addresses import Addresses
from hubgate.cli.server.connection import EXCESS_CONNECTIONS, Connection
from hubgate.cli.server.draining import DrainingServer
from hubgate.cli.server.process import allow_open_files, log_to_stderr, say_stopped
from hubgate.cli.server.sockets import acceptors, join, listen, url_of
from hubgate.core.chunking import icu_warning
from hubgate.settings import LOOPBACK
from hubgate.store.lock import HomeLock
from hubgate.terminal.memory import return_freed_memory, return_large_blocks, tune_for_requests
from hubgate.wiring import READY_ENDPOINT, open_application

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubgate.cli.server.assignment import Assignment
    from hubgate.settings import Settings
    from hubgate.web.app import Application

_KEEP_ALIVE_SECONDS = 75
"""Longer than common clients and load balancers keep an idle connection: the side that closes first may cut off a request."""

_log = logging.getLogger(__name__)


async def serve(
    settings: Settings,
    *,
    started: Callable[[str, Application, uvicorn.Server], None],
    with_ready_endpoint: bool = True,
    shared: Assignment | None = None,
) -> None:
    """Serve until stopped. `started` is called with the gateway's URL once requests are accepted.

    With `shared`, it is one of several workers, and also serves on their port.
    """
    with ExitStack() as stack:
        lock = stack.enter_context(HomeLock(settings.home))
        sockets = [stack.enter_context(listen(settings.host, settings.port))]
        async with open_application(settings, serving=True) as gate:
            # A local model belongs to one machine, so a shared database starts without it.
            ready = READY_ENDPOINT if with_ready_endpoint and not settings.database_url else None
            # Models that are unloaded when idle are loaded on their first request.
            await gate.gateway.start(ready, load_models=not settings.local_idle_seconds)
            url = url_of(sockets[0])
            gate.access.admit_cli(lock.announce(url))
            if shared is not None:
                gate.access.admit_cli(shared.cli_key)
                sockets.append(stack.enter_context(join(settings.host, shared.shared_port)))
            addresses = Addresses(settings.max_pending_per_address, settings.trusted_proxies)
            config = uvicorn.Config(
                gate.app,
                http=cast("type[asyncio.Protocol]", partial(Connection, addresses=addresses)),
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=settings.trusted_proxies,
                limit_concurrency=settings.max_connections,  # as `Connection` reads it
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            )
            server = DrainingServer(
                config,
                gate.gateway,
                drain_delay=settings.drain_delay,
                drain_seconds=settings.drain_seconds,
                started=lambda: started(url, gate, server),
            )
            background = {asyncio.create_task(run()) for run in gate.background}
            try:
                await server.serve(
                    sockets=[stack.enter_context(copy) for one in sockets for copy in acceptors(one)]
                )
            finally:
                for task in background:
                    task.cancel()
                await asyncio.wait(background)


def run(settings: Settings) -> None:
    """Serve in this process until Ctrl-C, SIGTERM or SIGHUP."""
    greeting: list[asyncio.Task[None]] = []

    def started(url: str, gate: Application, _: uvicorn.Server) -> None:
        greeting.append(asyncio.create_task(_greet(url, gate, everywhere=settings.host in LOOPBACK)))

    run_until_stopped(settings, started)
    say_stopped()


def run_until_stopped(
    settings: Settings,
    started: Callable[[str, Application, uvicorn.Server], None],
    *,
    label: str = "",
    shared: Assignment | None = None,
) -> None:
    """Serve in this process, which is tuned for it, until Ctrl-C, SIGTERM or SIGHUP. `label` begins each log line."""
    log_to_stderr(settings.log_level, label)
    if warning := icu_warning():
        _log.warning(warning)
    allow_open_files(settings.max_connections + EXCESS_CONNECTIONS)

    def tune(url: str, gate: Application, server: uvicorn.Server) -> None:
        tune_for_requests()
        return_large_blocks()
        loop = asyncio.get_running_loop()
        gate.replies.on_idle = lambda: loop.run_in_executor(None, return_freed_memory)
        started(url, gate, server)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings, started=tune, shared=shared))


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
