"""The verbs that change which models are registered, and how.

Changes of one endpoint happen one after the other, and none takes back what another did while it waited its turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import fields, replace
from typing import cast

from hubgate.domain.endpoint import Endpoint, Facts, Source, Target
from hubgate.domain.endpoint_fields import IDENTITY
from hubgate.domain.errors import EndpointExists
from hubgate.domain.ports import Model, Upstream
from hubgate.domain.secret import Secret
from hubgate.service.inference.chunk_size import size_warning
from hubgate.service.registry.live_endpoints import Live
from hubgate.service.registry.model_proxies import Lent, SwitchedOff
from hubgate.service.registry.opening import Opening

_log = logging.getLogger(__name__)


class Changing(Opening):
    """Endpoints are registered, changed and removed."""

    async def register(
        self, draft: Endpoint, token: Secret | None, *, within: float | None = None
    ) -> Endpoint:
        """Prove that an endpoint works, learn what it is, then store it. Nothing is stored if it fails.

        Args:
            draft: what the operator says of it; its facts are replaced by what is learned.
            token: the upstream's access token, unless the endpoint names a connection.
            within: seconds for the whole of it.

        Raises:
            EndpointExists: the name is taken.
            HubgateError: it does not work; says why and what to do.
        """
        async with self._change_of(draft.name):
            proven, model = await self._prove(await self._new(draft, token), within)
            await to_its_end(self._put(proven, model, self._store.add_endpoint))
        _log.info("registered endpoint %s (%s)", draft.name, draft.source)
        return proven.endpoint

    async def keep(self, draft: Endpoint, token: Secret | None) -> Endpoint:
        """Store an endpoint that was not proved, switched off; it is proved when it is switched on.

        Raises:
            EndpointExists: the name is taken.
            InvalidEndpoint: its settings cannot be used, whatever runs there.
        """
        draft = replace(draft, enabled=False, facts=Facts())
        async with self._change_of(draft.name):
            target = await self._new(draft, token)
            await to_its_end(self._put(target, SwitchedOff(draft.name), self._store.add_endpoint))
        _log.info("kept endpoint %s, switched off", draft.name)
        return draft

    async def clone(self, name: str, twin: str) -> Endpoint:
        """Register an endpoint once more under another name, with its token and all that was learned of it.

        Raises:
            EndpointNotFound: there is none of the first name.
            EndpointExists: the other name is taken.
        """
        live = self._live.find(name)
        cloned, refused = replace(live.endpoint, name=twin), live.changed
        async with self._change_of(twin):
            target = await self._new(cloned, None if cloned.connection else live.target.token)
            await to_its_end(self._put(target, self._model(target), self._store.add_endpoint, refused))
        _log.info("cloned endpoint %s from %s", twin, name)
        return cloned

    async def update(
        self, changed: Endpoint, token: Secret | None = None, *, within: float | None = None
    ) -> Endpoint:
        """Put an endpoint's new settings to the proof and in force.

        Without a token the old one stays; with one, it takes the place of a connection.

        Raises:
            EndpointNotFound: no endpoint has this name.
            HubgateError: it does not work any more; the old settings stay in force.
        """
        old = self._live.find(changed.name)
        if token is not None:
            changed = replace(changed, connection=None)
        if changed == old.endpoint and token in (None, old.target.token):
            return old.endpoint
        return await self._renew(changed, token, within)

    async def edit(
        self,
        changed: Endpoint,
        token: Secret | None = None,
        *,
        keep_token: bool = True,
        within: float | None = None,
    ) -> Endpoint:
        """Put an endpoint's new settings in force; its model is asked only where they may change what it is.

        Args:
            changed: all settings, with the facts as they are.
            token: the new one of its own.
            keep_token: whether the old one stays; else it is `token`, or none.
            within: seconds for the proof.

        Raises:
            EndpointNotFound: no endpoint has this name.
            HubgateError: it does not work any more; the old settings stay in force.
        """
        seen = self._live.find(changed.name).endpoint
        async with self._change_of(changed.name):
            old = self._live.find(changed.name)
            changed = _upon(old.endpoint, changed, seen)
            if keep_token and token is None and not changed.connection:
                token = await self._own_token(old, changed)
            target = await self._resolve(replace(changed, facts=_facts(old.endpoint, changed)), token)
            if target.token != old.target.token or is_another(old.endpoint, changed):
                target = replace(target, endpoint=replace(changed, facts=Facts()))
            if target == old.target:
                return target.endpoint
            proved = changed.enabled and target.endpoint.facts.engine is None
            if proved:
                target, model = await self._prove(target, within)
                refused = None
            else:
                model, refused = self._lend(old, target), old.changed
            storing = self._put(target, model, self._store.save_endpoint, refused, proved=proved)
            await to_its_end(storing)
        _log.info("changed endpoint %s", changed.name)
        return target.endpoint

    async def remove(self, name: str) -> None:
        """Forget an endpoint; none that it stood in for names it any more.

        Raises:
            EndpointNotFound: there is none.
        """
        self._live.find(name)
        for other in [live.endpoint for live in self._live if live.endpoint.fallback == name]:
            await self.edit(replace(other, fallback=None))
        async with self._change_of(name):
            self._live.find(name)
            await to_its_end(self._forget(name))
        _log.info("removed endpoint %s", name)

    async def accept(self, name: str, *, within: float | None = None) -> Endpoint:
        """Take what runs there now for the registered model: its vectors do not match those from before.

        Raises:
            EndpointNotFound: no endpoint has this name.
            HubgateError: it does not answer.
        """
        return await self._renew(self._live.find(name).endpoint, None, within, any_dimensions=True)

    async def _renew(
        self, changed: Endpoint, token: Secret | None, within: float | None, *, any_dimensions: bool = False
    ) -> Endpoint:
        seen = self._live.find(changed.name).endpoint
        async with self._change_of(changed.name):
            old = self._live.find(changed.name)
            changed = _upon(old.endpoint, changed, seen)
            if token is None and not changed.connection:
                token = await self._own_token(old, changed)
            target = await self._resolve(changed, token)
            proven, model = await self._prove(target, within, any_dimensions=any_dimensions)
            await to_its_end(self._put(proven, model, self._store.save_endpoint))
        _log.info("renewed endpoint %s", changed.name)
        return proven.endpoint

    async def _new(self, draft: Endpoint, token: Secret | None) -> Target:
        if draft.name in self._live:
            raise EndpointExists(draft.name)
        return await self._resolve(draft, token)

    def _lend(self, old: Live, target: Target) -> Model:
        """The model for settings that do not change what it is. A local one stays loaded."""
        changed = target.endpoint
        if not (changed.source is Source.LOCAL and changed.enabled and old.endpoint.enabled):
            return self._model(target)
        if not isinstance(old.model, Lent):
            old.model = Lent(cast("Upstream", old.model))
        return old.model.lend()

    async def _forget(self, name: str) -> None:
        await self._store.remove_endpoint(name)
        self._starting.stop(name)
        self._live.retire(name)


def _upon(now: Endpoint, changed: Endpoint, seen: Endpoint) -> Endpoint:
    """What `changed` says otherwise than `seen`, upon what another change has made of that in the meantime."""
    pairs = {one.name: (getattr(changed, one.name), getattr(seen, one.name)) for one in fields(Endpoint)}
    return replace(now, **{name: new for name, (new, old) in pairs.items() if new != old})


def _facts(old: Endpoint, changed: Endpoint) -> Facts:
    """What was learned, with the warning that the chunks now deserve."""
    facts = old.facts
    if old.chunking == changed.chunking:
        return facts
    before, now = (size_warning(replace(one, facts=facts), one.chunking) for one in (old, changed))
    others = tuple(warning for warning in facts.warnings if warning != before)
    return replace(facts, warnings=(*others, now) if now else others)


def is_another(old: Endpoint, changed: Endpoint) -> bool:
    """Whether a setting was changed that decides what the model is or how it is reached."""
    return any(getattr(old, name) != getattr(changed, name) for name in IDENTITY)


async def to_its_end(change: Coroutine[None, None, None]) -> None:
    """Finish a change even if the one who asked for it has left: memory and store stay of one mind."""
    task = asyncio.ensure_future(change)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})  # the next change of this endpoint begins after this one
        raise
