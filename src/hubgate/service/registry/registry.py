"""The registry: adding, changing, checking and removing endpoints."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import fields, replace
from weakref import WeakValueDictionary

from hubgate.core.errors import error_for_caller
from hubgate.core.traffic.balancer import Balancer
from hubgate.domain.diagnosis import Finding
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Facts, Target
from hubgate.domain.endpoint_fields import changes_model
from hubgate.domain.errors import (
    AliasExists,
    BehindAlias,
    EndpointConflict,
    EndpointExists,
)
from hubgate.domain.ports import Counters, Model, Sources
from hubgate.domain.records import Key
from hubgate.domain.secret import Secret
from hubgate.service.inference.chunk_size import size_warning
from hubgate.service.registry.connections import Connections
from hubgate.service.registry.diagnosis import diagnose
from hubgate.service.registry.live_endpoints import DisabledModel, LiveEndpoint, LiveEndpoints
from hubgate.service.registry.replicas import diagnose_replicas, validate_replicas
from hubgate.service.registry.startup import StartupTasks
from hubgate.service.registry.stored_endpoints import StoredEndpoints
from hubgate.service.registry.token_guard import TokenGuard
from hubgate.service.registry.validation import (
    changed_error,
    describe_change,
    validate_endpoint,
)

_TRIES = 5
"""How often a change is made that keeps meeting changes of other gateways."""

_log = logging.getLogger(__name__)


class Registry:
    """The verbs for endpoints. `StoredEndpoints` stores what they decide and puts it into service.

    Changes of one endpoint are made one after the other, each on top of the one before, also at several gateways.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        counters: Counters | None,
        live: LiveEndpoints,
        stored: StoredEndpoints,
        connections: Connections,
        token_guard: TokenGuard,
        startup: StartupTasks,
    ) -> None:
        self._sources = sources
        self._counters = counters
        self._live = live
        self._stored = stored
        self._connections = connections
        self._token_guard = token_guard
        self._startup = startup
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def find(self, name: str) -> Endpoint:
        """Raises: EndpointNotFound."""
        return self._live.find(name).endpoint

    def resolve(self, name: str) -> Endpoint:
        """The endpoint of this name, or the one behind this alias. Raises: EndpointNotFound."""
        return self._live.resolve(name).endpoint

    def taken(self, name: str) -> EndpointExists | None:
        """The error of registering an endpoint under a name that an endpoint or an alias has."""
        if name in self._live:
            return EndpointExists(name)
        alias_of = self._live.aliases.get(name)
        return None if alias_of is None else AliasExists(name, alias_of)

    def endpoints(self) -> Sequence[Endpoint]:
        """All endpoints, sorted by name."""
        return [live.endpoint for live in self._live]

    def token(self, name: str) -> Secret | None:
        """The token that an endpoint is called with. Raises: EndpointNotFound."""
        return self._live.find(name).target.token

    def token_hint(self, name: str) -> str | None:
        """The last characters of an endpoint's own token, or `None` if it has none. Raises: EndpointNotFound."""
        live = self._live.find(name)
        return live.target.token.hint if live.target.token and not live.endpoint.connection else None

    def changed(self, name: str) -> str | None:
        """Why calls are refused until `accept`: another model is running. Raises: EndpointNotFound."""
        return self._live.find(name).changed

    async def register(
        self, draft: Endpoint, token: Secret | None, *, within: float | None = None
    ) -> Endpoint:
        """Validate an endpoint and store it with what was learned. If validation fails, nothing is stored.

        Args:
            draft: the operator's settings; its facts are replaced.
            token: the upstream's token, unless the endpoint uses a connection.
            within: a timeout in seconds.

        Raises:
            EndpointExists: the name is taken.
            HubgateError: validation failed.
        """
        async with self._lock(draft.name):
            valid, model = await self._validate(await self._resolve_new(draft, token), within)
            await self._stored.add(valid, model)
        _log.info("registered endpoint %s (%s)", draft.name, draft.source)
        return valid.endpoint

    async def register_disabled(self, draft: Endpoint, token: Secret | None) -> Endpoint:
        """Store a disabled endpoint without validation, which follows when it is enabled.

        Raises:
            EndpointExists: the name is taken.
            InvalidEndpoint: its settings are invalid.
        """
        draft = replace(draft, enabled=False, facts=Facts())
        async with self._lock(draft.name):
            target = await self._resolve_new(draft, token)
            await self._stored.add(target, DisabledModel(draft.name))
        _log.info("stored endpoint %s, disabled", draft.name)
        return draft

    async def clone(self, name: str, new_name: str) -> Endpoint:
        """Copy an endpoint with its token and its facts.

        Raises:
            EndpointNotFound: no endpoint has the first name.
            EndpointExists: the new name is taken.
        """
        live = self._live.find(name)
        clone, changed = replace(live.endpoint, name=new_name), live.changed
        async with self._lock(new_name):
            target = await self._resolve_new(clone, None if clone.connection else live.target.token)
            target = replace(target, changed=changed)
            await self._stored.add(target, self._live.open_model(target))
        _log.info("cloned endpoint %s from %s", new_name, name)
        return clone

    async def update(
        self, settings: Endpoint, token: Secret | None = None, *, within: float | None = None
    ) -> Endpoint:
        """Apply new settings, validating them in any case. Without a token the current one stays.

        Raises:
            EndpointNotFound: no endpoint has this name.
            HubgateError: validation failed; the old settings stay in force.
        """
        old = self._live.find(settings.name)
        if token is not None:
            settings = replace(settings, connection=None)
        if settings == old.endpoint and token in (None, old.target.token):
            return old.endpoint
        return await self._revalidate(settings, token, within)

    async def edit(
        self,
        settings: Endpoint,
        token: Secret | None = None,
        *,
        keep_token: bool = True,
        within: float | None = None,
    ) -> Endpoint:
        """Apply new settings, validating them only if they may change the model or how it is reached.

        Args:
            settings: all settings, with the current facts.
            token: a new token of its own.
            keep_token: whether the current token stays if none is given.
            within: a timeout for the validation in seconds.

        Raises:
            EndpointNotFound: no endpoint has this name.
            HubgateError: validation failed; the old settings stay in force.
        """
        base = self._live.find(settings.name).endpoint

        async def apply(old: LiveEndpoint) -> Endpoint:
            rebased = _rebased(settings, base, old.endpoint)
            own = token
            if keep_token and own is None and not rebased.connection:
                own = await self._own_token(old, rebased)
            return await self._apply(old, rebased, own, within)

        edited = await self._merging(settings.name, apply)
        _log.info("changed endpoint %s", settings.name)
        return edited

    async def accept(self, name: str, *, within: float | None = None) -> Endpoint:
        """Register the model that is running now. Its vectors do not match those of the one before.

        Raises:
            EndpointNotFound: no endpoint has this name.
            HubgateError: validation failed.
        """
        return await self._revalidate(self._live.find(name).endpoint, None, within, any_dimensions=True)

    async def remove(self, name: str) -> None:
        """Delete an endpoint, also as the fallback of others.

        Raises:
            EndpointNotFound: no endpoint has this name.
            BehindAlias: an alias leads to it.
        """
        self._live.find(name)
        if aliases := sorted(alias for alias, endpoint in self._live.aliases.items() if endpoint == name):
            raise BehindAlias(name, aliases)
        for other in [live.endpoint for live in self._live if live.endpoint.fallback == name]:
            await self.edit(replace(other, fallback=None))
        async with self._lock(name):
            self._live.find(name)
            await self._stored.remove(name)
        _log.info("removed endpoint %s", name)

    async def check(self, name: str, *, within: float | None = None) -> Endpoint:
        """Check that the registered model still answers; returns the endpoint with its current facts.

        Raises:
            EndpointNotFound: no endpoint has this name.
            EndpointChanged: another model is running. Calls are refused until `accept`.
            HubgateError: it does not answer.
        """
        checked = self._live.find(name)
        if checked.pipeline.health and checked.pipeline.health.balancer:
            return await self._check_replicas(checked, checked.pipeline.health.balancer)
        current, model = await validate_endpoint(self._sources, checked.target, within, any_dimensions=True)
        await model.close()
        live = self._live.find(name)  # its settings may have changed meanwhile
        if current.endpoint.task not in GENERATION_TASKS and not changes_model(
            checked.endpoint, live.endpoint
        ):
            self._live.mark_changed(live, describe_change(live.endpoint.facts, current.endpoint.facts))
        if live.changed is not None:
            raise changed_error(name, live.changed)
        self._startup.mark_ready(name)
        return current.endpoint

    async def diagnose(
        self, endpoint: Endpoint, token: Secret | None = None, *, keep_token: bool = False
    ) -> AsyncIterator[Finding]:
        """Diagnose an endpoint, registered or not, step by step. Recorded in the audit log.

        Args:
            endpoint: current or new settings.
            token: its own token.
            keep_token: whether to use its stored token, as in `edit`.

        Raises:
            InvalidEndpoint: a stored token may not be sent there.
            StoreFailed: the audit log cannot be written.
        """
        if keep_token and not endpoint.connection:
            token = await self._own_token(self._live.find(endpoint.name), endpoint)
        target = await self._connections.resolve(endpoint, token)
        await self._token_guard.record_diagnosis(endpoint)
        if endpoint.is_replicated:
            return diagnose_replicas(self._sources, target)
        return diagnose(self._sources, target)

    async def _apply(
        self, old: LiveEndpoint, settings: Endpoint, token: Secret | None, within: float | None
    ) -> Endpoint:
        """Change an endpoint. The model is called only if it may be another one."""
        facts = _facts_with_size_warning(old.endpoint, settings)
        target = await self._connections.resolve(replace(settings, facts=facts), token)
        if target.token != old.target.token or changes_model(old.endpoint, settings):
            target = replace(target, endpoint=replace(settings, facts=Facts()))
        if target == old.target:
            return target.endpoint
        needs_validation = settings.enabled and target.endpoint.facts.engine is None
        if needs_validation:
            target, model = await self._validate(target, within, old.endpoint)
        else:
            target = replace(target, changed=old.changed)
            model = self._stored.reuse_model(old, target)
        target = replace(target, version=old.target.version)
        await self._stored.save(target, model, validated=needs_validation)
        return target.endpoint

    async def _revalidate(
        self, settings: Endpoint, token: Secret | None, within: float | None, *, any_dimensions: bool = False
    ) -> Endpoint:
        base = self._live.find(settings.name).endpoint

        async def validate(old: LiveEndpoint) -> Endpoint:
            rebased = _rebased(settings, base, old.endpoint)
            own = token
            if own is None and not rebased.connection:
                own = await self._own_token(old, rebased)
            target = await self._connections.resolve(rebased, own)
            valid, model = await self._validate(target, within, old.endpoint, any_dimensions=any_dimensions)
            valid = replace(valid, version=old.target.version)
            await self._stored.save(valid, model)
            return valid.endpoint

        validated = await self._merging(settings.name, validate)
        _log.info("validated endpoint %s again", settings.name)
        return validated

    async def _merging(self, name: str, change: Callable[[LiveEndpoint], Awaitable[Endpoint]]) -> Endpoint:
        """Make a change on top of the current endpoint, and again if another gateway was faster.

        Raises:
            EndpointConflict: other gateways were faster each time.
        """
        async with self._lock(name):
            for _ in range(_TRIES - 1):
                try:
                    return await change(self._live.find(name))
                except EndpointConflict:
                    await self._stored.follow([name])
            return await change(self._live.find(name))

    async def _check_replicas(self, live: LiveEndpoint, balancer: Balancer) -> Endpoint:
        await balancer.test_all()
        errors = [replica.error for replica in balancer.replicas if replica.error]
        are_all_changed = all(replica.changed for replica in balancer.replicas)
        self._live.mark_changed(live, errors[0].message if are_all_changed else None)
        if live.changed is not None:
            raise changed_error(live.endpoint.name, live.changed)
        if errors:
            raise error_for_caller(errors[0], shared=False)
        return live.endpoint

    async def _resolve_new(self, draft: Endpoint, token: Secret | None) -> Target:
        if error := self.taken(draft.name):
            raise error
        return await self._connections.resolve(draft, token)

    async def _own_token(self, old: LiveEndpoint, settings: Endpoint) -> Secret | None:
        """The endpoint's current token of its own, if it may be sent where the new settings lead.

        Raises:
            InvalidEndpoint: it may not.
        """
        if old.endpoint.connection or old.target.token is None:
            return None
        await self._token_guard.check_own(old.endpoint, settings)
        return old.target.token

    async def _validate(
        self,
        draft: Target,
        within: float | None,
        former: Endpoint | None = None,
        *,
        any_dimensions: bool = False,
    ) -> tuple[Target, Model]:
        validate = validate_replicas if draft.endpoint.is_replicated else validate_endpoint
        valid, model = await validate(
            self._sources,
            draft,
            within,
            any_dimensions=any_dimensions,
            learn=True,
            counters=self._counters,
            former=former,
        )
        if valid.endpoint.enabled:
            return valid, model
        await model.close()
        return valid, DisabledModel(valid.endpoint.name)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


def users_of(name: str, endpoints: Iterable[Endpoint], keys: Iterable[Key]) -> list[str]:
    """The keys and endpoints that refer to an endpoint, by scope, as a default or as a fallback."""
    return [
        *(f"key {key.name}" for key in keys if name in (*key.endpoints, key.default_endpoint)),
        *(f"endpoint {endpoint.name}" for endpoint in endpoints if endpoint.fallback == name),
    ]


def _rebased(settings: Endpoint, base: Endpoint, current: Endpoint) -> Endpoint:
    """The changes from `base` to `settings`, applied to the current settings, which may have changed meanwhile."""
    pairs = {field.name: (getattr(settings, field.name), getattr(base, field.name)) for field in fields(base)}
    return replace(current, **{name: new for name, (new, old) in pairs.items() if new != old})


def _facts_with_size_warning(old: Endpoint, new: Endpoint) -> Facts:
    """The facts, with the chunk size warning updated for new chunking settings."""
    facts = old.facts
    if old.chunking == new.chunking:
        return facts
    before, now = (size_warning(replace(one, facts=facts), one.chunking) for one in (old, new))
    others = tuple(warning for warning in facts.warnings if warning != before)
    return replace(facts, warnings=(*others, now) if now else others)
