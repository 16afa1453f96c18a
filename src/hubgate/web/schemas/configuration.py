"""The whole configuration as one text in YAML: what `/api/config` and the settings page export and apply."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import InvalidRequest
from hubgate.service.configuration.apply import Config
from hubgate.service.configuration.plan import Step
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.service.keys.credentials import ADMIN
from hubgate.web.schemas.config_yaml import read_config, write_config

_MOST_CHARACTERS = 1_000_000


class Configuration:
    """Exported, and applied one after the other. No secret stands in it."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access
        self._config = Config(gateway, access)

    def export(self) -> str:
        """All connections, endpoints and keys."""
        keys = [key for key in self._access.list() if key.name != ADMIN]
        endpoints = self._with_tokens(self._gateway.registry.endpoints())
        return write_config(self._gateway.connections.all(), endpoints, keys)

    def export_endpoint(self, name: str) -> str:
        """One endpoint.

        Raises:
            EndpointNotFound: there is none of this name.
        """
        return write_config([], self._with_tokens([self._gateway.registry.find(name)]), [])

    async def apply(
        self, text: str, secrets: Mapping[str, str], *, prune: bool, dry_run: bool, own_key: str
    ) -> Sequence[Step]:
        """Bring about what a text says; see `Config.apply`.

        Args:
            text: the YAML.
            secrets: the values of its `${NAME}`, by name.
            prune: whether what it does not name is removed.
            dry_run: whether the plan is only told.
            own_key: the id of the key that asks, which is not revoked.

        Raises:
            InvalidRequest: it cannot be read, or does not fit together.
        """
        if len(text) > _MOST_CHARACTERS:
            raise InvalidRequest(f"A configuration has at most {_MOST_CHARACTERS} characters.")
        tokens = {
            *(
                ("endpoint", one.name)
                for one, has in self._with_tokens(self._gateway.registry.endpoints())
                if has
            ),
            *(("connection", name) for name in self._gateway.connections.by_name),
        }
        wanted = await asyncio.to_thread(read_config, text, secrets, tokens)
        return await self._config.apply(wanted, prune=prune, dry_run=dry_run, spared_key=own_key)

    def _with_tokens(self, endpoints: Iterable[Endpoint]) -> list[tuple[Endpoint, bool]]:
        """Each with whether it has a token of its own."""
        return [(one, self._gateway.registry.token_hint(one.name) is not None) for one in endpoints]
