"""Export and apply the whole configuration as YAML, for `/api/config` and the settings page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import InvalidRequest
from hubgate.service.configuration import ConfigApplier, Step
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.service.keys.credentials import ADMIN
from hubgate.web.schemas.config_yaml import read_config, write_config

_MAX_CHARACTERS = 1_000_000


class Configuration:
    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access
        self._config = ConfigApplier(gateway, access)

    def export(self) -> str:
        """All connections, endpoints, aliases and keys."""
        keys = [key for key in self._access.list() if key.name != ADMIN]
        endpoints = self._with_tokens(self._gateway.registry.endpoints())
        return write_config(self._gateway.connections.all(), endpoints, self._gateway.live.aliases, keys)

    def export_endpoint(self, name: str) -> str:
        """One endpoint.

        Raises:
            EndpointNotFound: no endpoint has this name.
        """
        return write_config([], self._with_tokens([self._gateway.registry.find(name)]), {}, [])

    async def apply(
        self,
        text: str,
        secrets: Mapping[str, str],
        *,
        prune: bool,
        dry_run: bool,
        own_key: str,
        accept_new_vectors: bool = False,
    ) -> Sequence[Step]:
        """Apply a configuration; see `ConfigApplier.apply`.

        Args:
            text: YAML.
            secrets: values of its `${NAME}` references, by name.
            prune: whether to remove anything not in the text.
            dry_run: whether to only return the plan.
            own_key: id of the caller's key, which is never revoked.
            accept_new_vectors: whether aliases may be moved to vectors that cannot be compared with those before.

        Raises:
            InvalidRequest: the text is invalid, or inconsistent.
        """
        if len(text) > _MAX_CHARACTERS:
            raise InvalidRequest(f"A configuration can have at most {_MAX_CHARACTERS} characters.")
        tokens = {
            *(
                ("endpoint", one.name)
                for one, has in self._with_tokens(self._gateway.registry.endpoints())
                if has
            ),
            *(("connection", name) for name in self._gateway.connections.by_name),
        }
        wanted = await asyncio.to_thread(read_config, text, secrets, tokens)
        return await self._config.apply(
            wanted,
            prune=prune,
            dry_run=dry_run,
            own_key=own_key,
            accept_new_vectors=accept_new_vectors,
        )

    def _with_tokens(self, endpoints: Iterable[Endpoint]) -> list[tuple[Endpoint, bool]]:
        """Endpoints, each with whether it has a token of its own."""
        return [(one, self._gateway.registry.token_hint(one.name) is not None) for one in endpoints]
