"""Builds the application from the settings. The only file that knows every part."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from hubgate.core.byte_budget import ByteBudget
from hubgate.core.queue.fair_queue import MAX_WAITING_CALLS
from hubgate.core.traffic.leases import SharedLeases
from hubgate.core.traffic.notices import SharedNotices
from hubgate.core.traffic.slots import SharedLimits
from hubgate.domain.endpoint import Endpoint, Source, Task
from hubgate.domain.errors import StoreFailed
from hubgate.features import load
from hubgate.features.feature import Core, open_features
from hubgate.service.cluster.following import Applier
from hubgate.service.cluster.gates import Gates
from hubgate.service.cluster.member import Member
from hubgate.service.gateway import Gateway
from hubgate.service.inference.ledger import Ledger
from hubgate.service.inference.pipeline import Pipelines
from hubgate.service.inference.vector_cache import VectorMemory
from hubgate.service.keys.access import Access
from hubgate.service.metrics import Lines, Meter
from hubgate.service.shared_values import SharedValues
from hubgate.settings import Settings
from hubgate.store.lock import gateway_id
from hubgate.store.store import SqlStore
from hubgate.store.vectors.disk import DiskVectorCache
from hubgate.upstreams.hub.client import open_hub
from hubgate.upstreams.hub.tokenizers import TokenizerFiles
from hubgate.upstreams.sources import ModelSources
from hubgate.web.app import Application, create_app

READY_ENDPOINT = Endpoint(
    name="all-minilm-l6-v2",
    task=Task.TEXT_EMBEDDING,
    source=Source.LOCAL,
    model="sentence-transformers/all-MiniLM-L6-v2",
)
_FLUSH_SECONDS = 5.0
_KEY_LIMIT_SECONDS = 0.1
"""How long a call waits to be counted for all gateways."""

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_application(settings: Settings, *, serving: bool = False) -> AsyncIterator[Application]:
    """Open the application on the running event loop. The caller must hold the lock of the home folder.

    Unless it is `serving`, it is for one command: it shares neither changes, rate limits nor batches with gateways.

    Raises:
        StoreFailed: the database or the secret key cannot be used.
    """
    async with AsyncExitStack() as closing:
        features = load()
        store = await SqlStore.open(settings)
        closing.push_async_callback(store.close)
        gates = await _open_gates(settings, store, serving=serving)
        version = await store.feed.version() if settings.database_url else 0  # before anything is read
        shared = SharedValues(store.expiring_values if settings.database_url else None)
        is_gateway = serving or gates is None
        access, new_key = await Access.load(store, settings.admin_key, shared=shared, is_gateway=is_gateway)
        sources = ModelSources(settings)
        memory = _open_vector_cache(settings, store, closing, serving=serving)
        counters = await _open_counters(settings, store)
        traffic = await closing.enter_async_context(_shared_traffic(settings, access, serving=serving))
        ledger = await Ledger.load(store, time.monotonic)
        closing.push_async_callback(ledger.close)
        pipelines = _pipelines(settings, store, memory, counters, ledger=ledger, traffic=traffic)
        gateway = Gateway(store, sources, pipelines, counters, gates)
        closing.push_async_callback(access.flush)
        hub = open_hub(settings)
        closing.push_async_callback(hub.close)
        core = Core(settings, store, gateway, access, hub)
        parts = await closing.enter_async_context(open_features(features, core))
        closing.push_async_callback(gateway.close)  # before features close: they count the calls that end now
        meter = _meter(settings, gateway, sources, traffic.limits, memory, more=parts.metrics)
        await gateway.stored.load()
        for _, follow in parts.follows:
            await follow()
        closing.push_async_callback(_cancel, asyncio.create_task(_flush(access)))
        if serving and gates:
            own_cache = None if settings.cache_url else memory  # a shared one is cleared once for all
            applier = Applier(access, gateway, own_cache, counters.share, parts.follows)
            member = Member(settings.gate, store.feed, gates, applier, traffic.limits, version=version)
            await _join(closing, gateway, meter, member)
        app = create_app(
            gateway,
            access,
            meter,
            memory,
            hub=hub,
            max_body_bytes=settings.max_body_bytes,
            max_total_body_bytes=settings.max_total_body_bytes,
            replies=(replies := ByteBudget(settings.max_total_reply_bytes)),
            keys_in_path=settings.keys_in_path,
            cookie_keys=await store.cookie_keys() if settings.database_url else (),
            shared=shared,
            parts=parts,
        )
        if serving:
            for serve in parts.serving:
                await closing.enter_async_context(serve(app.call))
        yield Application(app, gateway, parts.background, access, replies, first_admin_key=new_key)


def _meter(
    settings: Settings,
    gateway: Gateway,
    sources: ModelSources,
    shared_limits: SharedLimits | None,
    memory: VectorMemory | None,
    *,
    more: Sequence[Lines],
) -> Meter:
    return Meter(
        gateway.pipelines,
        sources.local_memory,
        shared_limits,
        memory.store if memory else None,
        more,
        gateway_name=settings.gate,
    )


async def _open_gates(settings: Settings, store: SqlStore, *, serving: bool) -> Gates | None:
    if settings.database_url is None:
        return None
    gates = Gates(store.feed)
    await gates.check_keys(settings.gate if serving else "")
    return gates


async def _open_counters(settings: Settings, store: SqlStore) -> TokenizerFiles:
    counters = TokenizerFiles(
        settings.tokenizers,
        hf_endpoint=settings.hf_endpoint,
        shared=store.files if settings.database_url else None,
    )
    if settings.database_url:
        await counters.share(target.endpoint for target in await store.endpoints())
    return counters


@dataclass(frozen=True, slots=True)
class _SharedTraffic:
    """What the gateways of a database share about the traffic to models' servers, if there are several."""

    limits: SharedLimits | None = None
    notices: SharedNotices | None = None
    leases: SharedLeases | None = None


@asynccontextmanager
async def _shared_traffic(
    settings: Settings, access: Access, *, serving: bool
) -> AsyncIterator[_SharedTraffic]:
    """Shared if gateways share a database."""
    if not serving or settings.database_url is None:
        yield _SharedTraffic()
        return
    from hubgate.store.backend import PATIENCE  # noqa: PLC0415
    from hubgate.store.cluster.postgres_leases import PostgresLeases  # noqa: PLC0415 - its driver is optional
    from hubgate.store.cluster.postgres_link import PostgresLink  # noqa: PLC0415
    from hubgate.store.cluster.postgres_minutes import PostgresKeyMinutes  # noqa: PLC0415
    from hubgate.store.cluster.postgres_notices import PostgresNotices  # noqa: PLC0415
    from hubgate.store.cluster.postgres_permits import PostgresPermits  # noqa: PLC0415
    from hubgate.store.postgres import PostgresDatabase  # noqa: PLC0415

    async with AsyncExitStack() as closing:
        database = PostgresDatabase(settings.database_url, PATIENCE)
        link, quick_link = PostgresLink(database), PostgresLink(database, _KEY_LIMIT_SECONDS)
        for each in (link, quick_link):
            closing.push_async_callback(each.close)
        gateway, clock = gateway_id(settings.home), time.monotonic
        name = f"the PostgreSQL database {database.name}"
        limits = SharedLimits(PostgresPermits(link), name, gateway, shares=settings.shares_alone, clock=clock)
        closing.push_async_callback(limits.close)
        notices = SharedNotices(PostgresNotices(link), secrets.token_hex(8), clock)
        closing.push_async_callback(notices.close)
        leases = SharedLeases(PostgresLeases(link), limits, secrets.token_hex(8))
        closing.push_async_callback(leases.close)
        access.limits.share(PostgresKeyMinutes(quick_link), lambda: limits.contact.gateways)
        await limits.start()
        await notices.start()
        leases.start()
        yield _SharedTraffic(limits, notices, leases)


def _open_vector_cache(
    settings: Settings, store: SqlStore, closing: AsyncExitStack, *, serving: bool
) -> VectorMemory | None:
    if not settings.cache_bytes:
        return None
    if settings.cache_url:
        from hubgate.store.vectors.shared import SharedVectors  # noqa: PLC0415 - of the extra [scale]

        shared = SharedVectors(settings.cache_url, store.shared_vectors_key)
        memory = VectorMemory(shared)
        closing.push_async_callback(memory.close)
        shared.when_cleared(memory.cache.clear)
        return memory
    disk = DiskVectorCache(settings.vectors, settings.cache_bytes)
    store.when_full(disk.free_space)
    if serving:
        disk.load()
    memory = VectorMemory(disk)
    closing.push_async_callback(memory.close)
    return memory


def _pipelines(
    settings: Settings,
    store: SqlStore,
    memory: VectorMemory | None,
    counters: TokenizerFiles,
    *,
    ledger: Ledger,
    traffic: _SharedTraffic,
) -> Pipelines:
    return Pipelines(
        memory.cache if memory else None,
        time.monotonic,
        counters,
        ledger,
        traffic.limits,
        notices=traffic.notices,
        leases=traffic.leases,
        max_reply_bytes=settings.max_reply_bytes,
        max_waiting_calls=max(MAX_WAITING_CALLS, settings.max_connections),
        cache_secret=store.cache_secret,
    )


async def _join(closing: AsyncExitStack, gateway: Gateway, meter: Meter, member: Member) -> None:
    meter.watch_feed(lambda: member.stale_seconds)
    closing.push_async_callback(member.leave)
    await member.join(lambda: gateway.draining, gateway.states.report)


async def _flush(access: Access) -> None:
    while True:
        await asyncio.sleep(_FLUSH_SECONDS)
        try:
            await access.flush()
        except StoreFailed as error:
            _log.error("could not store the last use of keys, retrying: %s", error)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
