"""Aliases: names that applications use for endpoints, and that an operator moves from one endpoint to another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hubgate.core.off_loop import shielded
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, InputType, Task, check_name
from hubgate.domain.errors import (
    EndpointExists,
    InvalidEndpoint,
    InvalidRequest,
    NewVectors,
    NotFound,
)
from hubgate.domain.records import Alias, Key
from hubgate.features.aliases.store import SqlAliases
from hubgate.service.registry.live_endpoints import LiveEndpoints
from hubgate.service.registry.replicas import model_difference
from hubgate.service.registry.validation import unverified

_PREFIX_NAMES = {
    InputType.INGEST: "prefix of documents",
    InputType.SEARCH: "prefix of queries",
    InputType.CLASSIFICATION: "prefix for classification",
    InputType.CLUSTERING: "prefix for clustering",
}


class Aliases:
    """All aliases, in memory and in the store. Calls find the endpoint of one with `LiveEndpoints.resolve`."""

    def __init__(self, store: SqlAliases, live: LiveEndpoints) -> None:
        self._store = store
        self._live = live
        self._aliases: dict[str, Alias] = {}
        self._changing = asyncio.Lock()
        """Held from a change in the store until it is in memory."""

    def all(self) -> Sequence[Alias]:
        """All aliases, sorted by name."""
        return [self._aliases[name] for name in sorted(self._aliases)]

    def find(self, name: str) -> Alias:
        """Raises: NotFound."""
        if name not in self._aliases:
            raise NotFound(f"No alias is named [{name[:200]}].", remedy="GET /api/aliases lists them.")
        return self._aliases[name]

    def of(self, endpoint: str) -> list[str]:
        """The names of the aliases that lead to an endpoint."""
        return [alias.name for alias in self.all() if alias.endpoint == endpoint]

    async def follow(self) -> None:
        """Use aliases as they are stored now, which other gateways may have changed."""
        async with self._changing:
            self._use(await self._store.all())

    async def set(self, name: str, endpoint: str, *, accept_new_vectors: bool = False) -> Move:
        """Add an alias, or move it. New calls go to the endpoint at once; those in flight end where they began.

        Args:
            name: the alias's name.
            endpoint: an endpoint's name.
            accept_new_vectors: whether its vectors may be ones that cannot be compared with those before.

        Raises:
            InvalidRequest: the name is invalid, or the endpoint has another task than the one before.
            EndpointExists: an endpoint has this name.
            EndpointNotFound: the endpoint does not exist.
            IsAlias: it is an alias.
            EndpointDisabled, EndpointChanged: it takes no calls.
            NewVectors: its vectors cannot be compared with those of the endpoint before.
            EndpointConflict: another gateway moved the alias at the same time.
        """
        _check_name(name)
        async with self._changing:
            if name in self._live:
                raise EndpointExists(name)
            new = self._live.find(endpoint)
            former = self._aliases.get(name)
            if former is not None and former.endpoint == endpoint:
                return Move(former, endpoint)
            reason = None
            if former is not None:
                self._live.admit(new)
                reason = self._why_not_comparable(former, new.endpoint)
                if reason and not accept_new_vectors:
                    raise _new_vectors(former.endpoint, endpoint, reason)
            alias = Alias(name=name, endpoint=endpoint, moved_at=time.time())
            await shielded(self._put(alias, former))
        return Move(alias, former.endpoint if former else None, reason)

    async def remove(self, name: str) -> None:
        """Raises: NotFound."""
        async with self._changing:
            self.find(name)
            await shielded(self._remove(name))

    def _why_not_comparable(self, alias: Alias, new: Endpoint) -> str | None:
        former = self._live.find(alias.endpoint).endpoint if alias.endpoint in self._live else None
        if former and not (former.task is new.task or {former.task, new.task} <= GENERATION_TASKS):
            raise InvalidRequest(
                f"Alias [{alias.name}] serves {former.task}, but endpoint [{new.name}] serves {new.task}.",
                remedy="Use another name for it, or remove the alias first.",
            )
        return why_not_comparable(former, new) if former else "the facts about the latter cannot be read"

    async def _put(self, alias: Alias, former: Alias | None) -> None:
        await self._store.put(alias, None if former is None else former.endpoint)
        self._use([*(one for one in self._aliases.values() if one.name != alias.name), alias])

    async def _remove(self, name: str) -> None:
        await self._store.remove(name)
        self._use(one for one in self._aliases.values() if one.name != name)

    def _use(self, aliases: Iterable[Alias]) -> None:
        self._aliases = {alias.name: alias for alias in aliases}
        self._live.aliases = {name: alias.endpoint for name, alias in self._aliases.items()}


class Move(NamedTuple):
    """An alias as it was set."""

    alias: Alias
    former: str | None = None
    """The endpoint before; `None` if it is new."""
    new_vectors: str | None = None
    """Why its vectors cannot be compared with those before, which was accepted."""


class AffectedKeys(NamedTuple):
    """The keys with a scope for which a move of an alias changes something, by name."""

    follow: list[str]
    """They may use the alias, and so call an endpoint by it that is not in their scope."""
    lose: list[str]
    """They could use the alias because of the endpoint before, and now cannot."""


def affected_keys(move: Move, keys: Iterable[Key]) -> AffectedKeys:
    """The keys that a move of an alias affects."""
    alias, former = move.alias, move.former
    scoped = [key for key in keys if key.endpoints and former != alias.endpoint]
    return AffectedKeys(
        follow=[
            key.name for key in scoped if alias.name in key.endpoints and alias.endpoint not in key.endpoints
        ],
        lose=[
            key.name
            for key in scoped
            if former in key.endpoints and not {alias.name, alias.endpoint} & {*key.endpoints}
        ],
    )


def _new_vectors(former: str, endpoint: str, reason: str) -> NewVectors:
    return NewVectors(
        f"The vectors of endpoint [{endpoint}] cannot be compared with those of [{former}]: {reason}.",
        remedy="Embed all documents with the new endpoint first (`hubgate compare` shows what changes), then move the "
        "alias and accept the new vectors: --accept-new-vectors, or [accept_new_vectors].",
    )


def why_not_comparable(before: Endpoint, now: Endpoint) -> str | None:
    """Why the vectors of two endpoints cannot be compared; `None` if they can, or if the task has none.

    They can if the models are the same, as for replicas, and hubgate adds the same prefixes.
    """
    if before.task not in {Task.TEXT_EMBEDDING, Task.SPARSE_EMBEDDING}:
        return None
    prefixes = [
        (label, before.effective_prefixes.get(kind, ""), now.effective_prefixes.get(kind, ""))
        for kind, label in _PREFIX_NAMES.items()
    ]
    prefixes.append(("prefix without an input type", before.default_prefix, now.default_prefix))
    different = [f"its {label} is {new!r}, not {old!r}" for label, old, new in prefixes if old != new]
    model = model_difference(before.facts, now.facts) or unverified(before.facts, now.facts)
    return ", ".join(filter(None, (model, *different))) or None


def _check_name(name: str) -> None:
    try:
        check_name(name)
    except InvalidEndpoint as error:
        raise InvalidRequest(error.message.replace("inference_id", "name of an alias")) from None
