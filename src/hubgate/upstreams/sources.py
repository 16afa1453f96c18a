"""All the places where models run, one row each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubgate.domain.endpoint import Source
from hubgate.upstreams.addresses import AddressRule
from hubgate.upstreams.dedicated import DedicatedSource
from hubgate.upstreams.fake import FakeSource
from hubgate.upstreams.http import AiohttpClient
from hubgate.upstreams.local import LocalSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubgate.domain.endpoint import Endpoint, Facts
    from hubgate.domain.ports import Sources, Upstream, Writer
    from hubgate.domain.secret import Secret
    from hubgate.settings import Settings


class ModelSources:
    """Implements `domain.ports.Sources`: hands each endpoint to the row of its source."""

    def __init__(self, settings: Settings) -> None:
        client = AiohttpClient(AddressRule(allow_private=settings.allow_private_addresses))
        self._rows: Mapping[Source, Sources] = {
            Source.DEDICATED: DedicatedSource(client),
            Source.LOCAL: LocalSource(hf_endpoint=settings.hf_endpoint),
            Source.FAKE: FakeSource(),
        }

    async def detect(self, endpoint: Endpoint, token: Secret | None) -> Facts:
        """What runs there: see `domain.ports.Sources`."""
        return await self._rows[endpoint.source].detect(endpoint, token)

    def open(self, endpoint: Endpoint, token: Secret | None) -> Upstream:
        """The upstream of an endpoint whose facts are known."""
        return self._rows[endpoint.source].open(endpoint, token)

    def open_writer(self, endpoint: Endpoint, token: Secret | None) -> Writer:
        """The writer of an endpoint whose facts are known."""
        return self._rows[endpoint.source].open_writer(endpoint, token)

    async def close(self) -> None:
        """Free what all upstreams share."""
        for row in self._rows.values():
            await row.close()
