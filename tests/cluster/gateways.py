"""Several `hubgate serve` on one PostgreSQL database, behind a load balancer."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from gateway_process import GatewayProcess, Home

from cluster.load_balancer import LoadBalancer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class SharedGateways(NamedTuple):
    """Gateways in processes of their own, each with a home as on a machine of its own."""

    homes: Sequence[Home]
    gateways: Sequence[GatewayProcess]
    balancer: LoadBalancer


def shared_home(folder: Path, url: str, admin_key: str = "", secret_key: str = "") -> Home:
    """A home on another machine, as far as hubgate can see."""
    folder.mkdir(exist_ok=True)
    home = Home(folder, admin_key)
    home.env |= {
        "HUBGATE_DATABASE_URL": url,
        "HUBGATE_SECRET_KEY": secret_key or secrets.token_urlsafe(32),
    }
    return home


@contextmanager
def shared_gateways(folder: Path, database_url: str, count: int = 3) -> Iterator[SharedGateways]:
    """Run that many gateways on a migrated database, with one admin key."""
    admin_key, secret_key = secrets.token_urlsafe(24), secrets.token_urlsafe(32)
    homes = [
        shared_home(folder / str(number), database_url, admin_key, secret_key) for number in range(count)
    ]
    with ExitStack() as stack, ThreadPoolExecutor(count) as threads:
        gateways = [home.serve() for home in homes]
        for gateway in gateways:
            stack.push(gateway)
        list(threads.map(lambda gateway: gateway.__enter__(), gateways))
        balancer = stack.enter_context(LoadBalancer([gateway.url for gateway in gateways], admin_key))
        yield SharedGateways(homes, gateways, balancer)
