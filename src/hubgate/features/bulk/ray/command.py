"""`hubgate job run --on ray…`: the job's gateway, its key, and what is printed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ipaddress
import secrets
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

from hubgate.features.bulk.engine.manifest import Totals
from hubgate.features.bulk.engine.retries import RetryingEmbedder
from hubgate.features.bulk.engine.runner import Progress
from hubgate.features.bulk.formats.formats import JSONL, PARQUET, check_kept
from hubgate.features.bulk.http import GatewayEmbedder
from hubgate.features.bulk.local import print_end
from hubgate.features.bulk.progress import show_progress
from hubgate.features.bulk.ray.worker import embed_by_gateway, embed_here
from hubgate.features.bulk.waking import announce
from hubgate.settings import Settings
from hubgate.store.lock import RunningGateway, running_gateway
from hubgate.terminal.client import CommandFailed, api, own_gateway, segment

if TYPE_CHECKING:
    from hubgate.features.bulk.folder import RunOptions, Task
    from hubgate.features.bulk.options import RayOptions
    from hubgate.features.bulk.ray.cluster import OpenEmbedder, Outcome, RayJob

_NEEDED = ("ray", "pyarrow", "obstore")
_STOPPED = "The job was stopped. To continue, run the same command again: finished parts are kept."
_KEY_SECONDS, _EXTEND_SECONDS, _RETRY_SECONDS = 3600, 900, 60


def run_on_ray(task: Task, options: RunOptions, on: RayOptions, *, overwrite: bool) -> None:
    """Run a job on a Ray cluster until it is done, and print its summary.

    Raises:
        CommandFailed: the job was stopped, or some rows have no vector.
    """
    assert on.on is not None  # noqa: S101 - it is why this function was called
    _check(task)
    from hubgate.features.bulk.ray.cluster import connected

    settings = Settings.from_env()
    with _gateway(settings, on) as gateway, contextlib.ExitStack() as stack:
        # Before the cluster, which may take a minute to start.
        endpoint = api("GET", f"/api/endpoints/{segment(task.endpoint)}", gateway=gateway)
        if on.local:
            _check_local(endpoint)
        announce(task.endpoint, gateway)
        stack.enter_context(connected(on.on, lambda reason: print(f"hubgate: {reason}", file=sys.stderr)))
        run = _Run(task, options, on, gateway, settings.home, overwrite)
        try:
            outcome = asyncio.run(run.run())
        except asyncio.CancelledError:  # SIGTERM
            raise CommandFailed(_STOPPED) from None
        except KeyboardInterrupt:  # Ctrl-C: every command exits with 130
            print(f"hubgate: {_STOPPED}", file=sys.stderr)
            raise
    if outcome.was_done:
        print("This job is already done. To start over, run it with --overwrite.")
    print_end(task, options, outcome.totals, f"{task.output}/_failed.jsonl")


def _check(task: Task) -> None:
    """Check what can be checked before anything starts.

    Raises:
        CommandFailed: an extra is not installed, or the output is not a folder.
    """
    if Path(task.output).suffix.lower() in PARQUET | JSONL:
        raise CommandFailed(f"With --on, the output is a folder of Parquet files, not {task.output}.")
    check_kept(task.columns, chunked=task.chunk)
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise CommandFailed(
            f"Jobs on Ray need {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed. Install hubgate[ray] (pip install"
            " 'hubgate[ray]'), here and on all nodes of the cluster."
        )


def _check_local(endpoint: dict[str, Any]) -> None:
    """Check that the nodes can run an endpoint's model.

    Raises:
        CommandFailed: they cannot.
    """
    if endpoint["source"] != "local":
        raise CommandFailed(
            f"--local-on-workers needs a model that runs locally, and the source of {endpoint['name']} is"
            f" {endpoint['source']}. Without the option, the nodes ask the gateway."
        )


@contextlib.contextmanager
def _gateway(settings: Settings, on: RayOptions) -> Any:
    """The gateway that the job asks, with an admin key.

    Raises:
        CommandFailed: it has none.
    """
    if on.gateway is None:
        with own_gateway.get()(settings):
            yield running_gateway(settings.home)
        return
    url = on.gateway.rstrip("/")
    running = running_gateway(settings.home)
    if running is not None:
        yield RunningGateway(url=url, pid=running.pid, key=running.key)
    elif settings.admin_key:
        yield RunningGateway(url=url, pid=0, key=settings.admin_key)
    else:
        raise CommandFailed(
            "With --gateway, set HUBGATE_ADMIN_KEY to an admin key of that gateway: the job creates a key of its own with it."
        )


class _Run(NamedTuple):
    task: Task
    options: RunOptions
    on: RayOptions
    gateway: RunningGateway
    home: Path
    overwrite: bool

    async def run(self) -> Outcome:
        current = asyncio.current_task()
        assert current is not None  # noqa: S101 - a coroutine runs in a task
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, current.cancel)
        if self.on.local:
            return await self._run(
                partial(embed_here, own_gateway.get(), self._config(), self.task, self.options)
            )
        self._check_reachable()
        async with _JobKey(self.gateway, self.task, bulk=self.options.bulk) as key:
            at_gateway = RunningGateway(url=self.gateway.url, pid=0, key=key.secret)
            return await self._run(partial(embed_by_gateway, at_gateway, self.task, self.options))

    async def _run(self, open_embedder: OpenEmbedder) -> Outcome:
        from hubgate.features.bulk.ray.cluster import ClusterRun

        progress = Progress(Totals())
        place = self.home if self.on.gateway is None else self.gateway

        def on_wait(reason: str | None) -> None:
            progress.waiting_for = reason

        async with (
            GatewayEmbedder(place, self.task, self.options) as embedder,
            show_progress(progress, self.options.price_per_million_tokens),
        ):
            model = RetryingEmbedder(embedder, clock=time.monotonic, on_wait=on_wait)
            return await ClusterRun(self._job(open_embedder), progress).run(model)

    def _job(self, open_embedder: OpenEmbedder) -> RayJob:
        from hubgate.features.bulk.ray.cluster import RayJob

        return RayJob(
            task=self.task,
            open_embedder=open_embedder,
            concurrency=self.options.concurrency,
            rows_per_task=self.on.rows_per_task,
            tasks=self.on.tasks,
            computes=self.on.local,
            overwrite=self.overwrite,
        )

    def _config(self) -> str:
        """The endpoint as YAML, for the nodes."""
        query = urlencode({"format": "json", "endpoint": self.task.endpoint})
        yaml: str = api("GET", f"/api/config?{query}", gateway=self.gateway)["yaml"]
        return yaml

    def _check_reachable(self) -> None:
        """Check that the gateway's address is not one that only this machine can reach.

        Raises:
            CommandFailed: it is, and the cluster has other machines.
        """
        from hubgate.features.bulk.ray.cluster import addresses

        is_elsewhere = "://" in (self.on.on or "") and not _is_loopback(self.on.on or "")
        if _is_loopback(self.gateway.url) and (is_elsewhere or len(addresses()) > 1):
            raise CommandFailed(
                f"The nodes of the cluster cannot reach hubgate at {self.gateway.url}. Serve it with HUBGATE_HOST=0.0.0.0,"
                " and pass the URL that they can reach with --gateway."
            )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _JobKey:
    """A key for the tasks: for one endpoint, and revoked afterwards. If this process dies, it expires within an hour."""

    def __init__(self, gateway: RunningGateway, task: Task, *, bulk: bool) -> None:
        self._gateway = gateway
        self._form = {
            "name": f"job {secrets.token_hex(4)} {task.output}"[:100],
            "bulk": bulk,
            "endpoints": [task.endpoint],
        }
        self.secret = ""
        self._id = ""

    async def __aenter__(self) -> Self:
        created = await self._api("POST", "/api/keys", {**self._form, "expires_at": _expiry()})
        self.secret, self._id = created["key"], created["id"]
        self._extending = asyncio.create_task(self._extend())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._extending.cancel()
        await asyncio.wait({self._extending})
        try:
            await self._api("DELETE", f"/api/keys/{segment(self._id)}")
        except CommandFailed as error:
            print(
                f"hubgate: The key {self._id} of the job is not revoked: {error} It expires within an hour.",
                file=sys.stderr,
            )

    async def _extend(self) -> None:
        wait = _EXTEND_SECONDS
        while True:
            await asyncio.sleep(wait)
            try:
                await self._api("PATCH", f"/api/keys/{segment(self._id)}", {"expires_at": _expiry()})
                wait = _EXTEND_SECONDS
            except CommandFailed:  # the gateway is away
                wait = _RETRY_SECONDS

    async def _api(self, method: str, path: str, body: object = None) -> Any:
        return await asyncio.to_thread(api, method, path, body, gateway=self._gateway)


def _expiry() -> int:
    return int(time.time()) + _KEY_SECONDS
