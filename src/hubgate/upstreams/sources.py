"""The sources of models: where they run, one row each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from hubgate.domain.diagnosis import Step
from hubgate.domain.endpoint import Endpoint, Facts, Source, Target
from hubgate.domain.hub import ModelPrompts
from hubgate.domain.ports import TextGenerator, Upstream
from hubgate.domain.token_hosts import HUGGING_FACE_HOSTS
from hubgate.runtime.machine import CpuShare
from hubgate.settings import Settings
from hubgate.upstreams.dedicated import DedicatedSource
from hubgate.upstreams.fake import FakeSource
from hubgate.upstreams.http.addresses import AddressRule
from hubgate.upstreams.http.dial import reach
from hubgate.upstreams.http.pool import PooledClient
from hubgate.upstreams.hub.client import HUB, HubClient
from hubgate.upstreams.hub.deployments import Deployments
from hubgate.upstreams.hub.prompts import read_prompts
from hubgate.upstreams.local.source import LocalSettings, LocalSource
from hubgate.upstreams.router import RouterSource
from hubgate.upstreams.urls import base_url, origin_of


class _ModelSource(Protocol):
    """One source; see `domain.ports.Sources`."""

    async def detect(self, target: Target) -> Facts: ...

    def open(self, target: Target) -> Upstream: ...

    def open_generator(self, target: Target) -> TextGenerator: ...

    async def close(self) -> None: ...


class ModelSources:
    """Implements `domain.ports.Sources`: passes each endpoint to its source."""

    def __init__(self, settings: Settings) -> None:
        self._rule = AddressRule(allow_private=settings.allow_private_addresses)
        client = PooledClient(self._rule, max_reply_bytes=settings.max_reply_bytes)
        # Whoever runs hubgate sets the Hub's address and its proxy: the rule is for endpoints that others register.
        hub_client = PooledClient(AddressRule())
        deployments = Deployments(hub_client, url=settings.endpoints_api_url, offline=settings.hf_offline)
        self._hub = HubClient(
            hub_client, deployments, hf_endpoint=settings.hf_endpoint, offline=settings.hf_offline
        )
        self._urls = {Source.ROUTER: settings.router_url}
        self._hub_url = settings.hf_endpoint or HUB
        self._local = LocalSource(
            LocalSettings(
                hf_endpoint=settings.hf_endpoint,
                share=CpuShare(settings.local_threads, settings.local_lanes),
                idle_seconds=settings.local_idle_seconds or None,
                shared=settings.shared_models,
            )
        )
        self._dedicated = DedicatedSource(client, deployments)
        self._sources: Mapping[Source, _ModelSource] = {
            Source.DEDICATED: self._dedicated,
            Source.ROUTER: RouterSource(client, self._hub, settings.router_url),
            Source.LOCAL: self._local,
            Source.FAKE: FakeSource(),
        }

    @property
    def hugging_face(self) -> Sequence[str]:
        return (*HUGGING_FACE_HOSTS, *map(origin_of, (*self._urls.values(), self._hub_url)))

    def token_route(self, endpoint: Endpoint) -> Sequence[str]:
        if endpoint.source is Source.FAKE:
            return ()
        if endpoint.source is Source.LOCAL:  # downloaded through the proxy of the environment
            return (origin_of(self._hub_url),)
        urls = [self._urls.get(each.source) or base_url(each.url or "") for each in endpoint.replicas]
        return tuple(dict.fromkeys(map(origin_of, filter(None, (*urls, endpoint.proxy)))))

    async def detect(self, target: Target) -> Facts:
        return await self._sources[target.endpoint.source].detect(target)

    async def read_prompts(self, target: Target) -> ModelPrompts:
        """See `domain.ports.Sources`."""
        facts = target.endpoint.facts
        if target.endpoint.source in {Source.LOCAL, Source.FAKE}:  # detected from the files
            return ModelPrompts(texts=facts.prompts or {}, default=facts.default_prompt)
        return await read_prompts(self._hub, target)

    async def added_prompt(self, target: Target) -> str:
        return (
            await self._dedicated.added_prompt(target) if target.endpoint.source is Source.DEDICATED else ""
        )

    async def reach(self, endpoint: Endpoint) -> AsyncIterator[Step]:
        """See `domain.ports.Sources`. With a proxy, only the connection to the proxy is checked."""
        url = self._urls.get(endpoint.source)
        if endpoint.source is Source.DEDICATED and endpoint.url:
            url = base_url(endpoint.url)
        if url is not None:
            async for step in reach(endpoint.proxy or url, self._rule, ca_bundle=endpoint.ca_bundle):
                yield step

    async def runs(self, target: Target) -> bool:
        return target.endpoint.source is Source.DEDICATED and await self._dedicated.runs(target)

    def open(self, target: Target) -> Upstream:
        return self._sources[target.endpoint.source].open(target)

    def open_generator(self, target: Target) -> TextGenerator:
        return self._sources[target.endpoint.source].open_generator(target)

    def local_memory(self) -> Mapping[tuple[str, str], int]:
        """The bytes of memory of each loaded local model, by its name and precision."""
        return self._local.memory()

    async def close(self) -> None:
        """Close all connections, and stop all local models."""
        for source in self._sources.values():
            await source.close()
        await self._hub.close()
