"""hubgate's HTTP client for one test."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.pool import PooledClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def open_http_client(rule: AddressRule | None = None, **options: Any) -> AsyncIterator[PooledClient]:
    client = PooledClient(rule or AddressRule(), **options)
    try:
        yield client
    finally:
        await client.close()
