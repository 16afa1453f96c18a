"""How a Ray task embeds: through a gateway, or with a model in its own process. Passed to the tasks by name."""

from __future__ import annotations

import asyncio
import atexit
import secrets
import tempfile
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from hubgate.domain.errors import Cause, HubgateError
from hubgate.features.bulk.http import GatewayEmbedder
from hubgate.settings import Settings
from hubgate.store.lock import running_gateway
from hubgate.terminal.client import CommandFailed, api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

    from hubgate.features.bulk.folder import RunOptions, Task
    from hubgate.store.lock import RunningGateway

    OwnGateway = Callable[[Settings], AbstractContextManager[bool]]
    """See `hubgate.terminal.client.own_gateway`."""


@asynccontextmanager
async def embed_by_gateway(
    gateway: RunningGateway, task: Task, options: RunOptions, _: int
) -> AsyncIterator[GatewayEmbedder]:
    """Ask a gateway."""
    async with GatewayEmbedder(gateway, task, options) as embedder:
        yield embedder


@asynccontextmanager
async def embed_here(
    own_gateway: OwnGateway, config: str, task: Task, options: RunOptions, cpus: int
) -> AsyncIterator[GatewayEmbedder]:
    """Run the endpoint of a configuration in this process, which keeps it for its next tasks.

    Raises:
        HubgateError: the model cannot run here.
    """
    home = await asyncio.to_thread(_serve_here, own_gateway, config, cpus)
    async with GatewayEmbedder(home, task, options) as embedder:
        yield embedder


@cache
def _serve_here(own_gateway: OwnGateway, config: str, cpus: int) -> Path:
    """A gateway that this process alone uses: with it, prefixes, chunks and counts are those of any other gateway."""
    stack = ExitStack()
    atexit.register(stack.close)
    home = Path(
        stack.enter_context(tempfile.TemporaryDirectory(prefix="hubgate-", ignore_cleanup_errors=True))
    )
    settings = replace(
        Settings.from_env(),
        home=home / "home",
        secret_key_file=home / "secret.key",
        admin_key=secrets.token_urlsafe(32),  # otherwise one would be generated and printed
        database_url=None,
        cache_url=None,
        cache_bytes=0,
        local_threads=cpus,
        local_idle_seconds=0,
    )
    stack.enter_context(own_gateway(settings))
    form = {"yaml": config, "secrets": {}, "dry_run": False, "prune": False}
    try:
        reply = api("POST", "/api/config", form, gateway=running_gateway(settings.home))
        failure = next((step["failure"]["message"] for step in reply["steps"] if "failure" in step), None)
    except CommandFailed as error:
        failure = str(error)
    if failure is not None:
        raise HubgateError(
            f"The model cannot run on a node of the cluster: {failure}",
            remedy="Install hubgate[local] on all nodes, and give them the model's files or access to the Hub.",
            cause=Cause.RUNTIME_MISSING,
        )
    return settings.home
