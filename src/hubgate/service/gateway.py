"""The verbs of the gate, the same for every face, the console and the command line."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial

from hubgate.core.traffic.rate_limiter import sending_under
from hubgate.domain.diagnosis import Finding
from hubgate.domain.endpoint import GENERATION_TASKS, Endpoint, Source
from hubgate.domain.errors import HubgateError
from hubgate.domain.secret import Secret
from hubgate.service.registry.changes import is_another
from hubgate.service.registry.connections import Connecting
from hubgate.service.registry.diagnosis import diagnose
from hubgate.service.registry.model_proxies import SwitchedOff
from hubgate.service.registry.opening import to_be_looked_at
from hubgate.service.registry.probe import ask_once
from hubgate.service.registry.validation import prove, refusal, what_changed

_READY_NOTE = "ready endpoint"
_CHECK_SECONDS = 300.0
"""For a check in the background: each of its few requests may wait a minute for its permit."""

_log = logging.getLogger(__name__)


class Gateway(Connecting):
    """Registered endpoints: to the verbs that ask a model and those that change it, those that look after it.

    One instance a process, used on one event loop.
    """

    draining = False
    """Whether it is about to stop: it still answers, but load balancers send calls elsewhere."""

    async def load(self) -> None:
        """Read the connections, and open every stored endpoint. One that cannot be opened is off until it is switched on."""
        stored = await self._store.endpoints()
        await self._load_connections([target.endpoint for target in stored])
        for own in stored:
            endpoint = own.endpoint
            try:
                target = await self._resolve(endpoint, own.token)
                live = self._open(target, self._model(target))
            except HubgateError as error:
                _log.error("endpoint %s is switched off: %s", endpoint.name, error)
                off = replace(endpoint, enabled=False)  # in memory alone: the next start tries again
                live = self._open(replace(own, endpoint=off), SwitchedOff(off.name))
            self._live.put(live)

    async def start(self, ready_endpoint: Endpoint | None = None, *, load_models: bool = True) -> None:
        """Begin, in the background, to load the local models and to look whether the dedicated ones are the same.

        Those that are not known to run are looked at when they have answered a call: no start wakes a server.

        Args:
            ready_endpoint: registered once in the life of this gate, unless there are endpoints already.
            load_models: whether local models are loaded now, and not when they are first asked.
        """
        endpoints = self.endpoints()
        for endpoint in filter(lambda endpoint: endpoint.enabled, endpoints):
            if endpoint.source is Source.LOCAL and load_models:
                self._starting.load(endpoint.name, partial(self._load, endpoint.name))
            elif to_be_looked_at(endpoint):
                runs = partial(self._sources.runs, self._live.find(endpoint.name).target)
                self._starting.look(endpoint.name, partial(self._check_in_turn, endpoint.name), runs)
        if ready_endpoint and await self._store.note(_READY_NOTE) is None:
            if endpoints:
                await self._store.set_note(_READY_NOTE, "not needed")
            else:
                self._starting.load(ready_endpoint.name, partial(self._make_ready, ready_endpoint))

    async def settled(self) -> None:
        """Wait until every local model answers or has failed."""
        await self._starting.settled()

    async def close(self) -> None:
        """Free every upstream. Calls in flight end with an error."""
        await self._starting.close()
        await self._live.close()
        await self._sources.close()

    def find(self, name: str) -> Endpoint:
        """The endpoint of this name.

        Raises:
            EndpointNotFound: there is none.
        """
        return self._live.find(name).endpoint

    def endpoints(self) -> Sequence[Endpoint]:
        """All endpoints, by name."""
        return [live.endpoint for live in self._live]

    def token_hint(self, name: str) -> str | None:
        """The last characters of the endpoint's own token, or `None` if it has none.

        Raises:
            EndpointNotFound: no endpoint has this name.
        """
        target = self._live.find(name).target
        return target.token.hint if target.token and not target.endpoint.connection else None

    def token(self, name: str) -> Secret | None:
        """The endpoint's token, to ask the Hub with.

        Raises:
            EndpointNotFound: no endpoint has this name.
        """
        return self._live.find(name).target.token

    def unready(self) -> dict[str, str]:
        """The local endpoints that do not answer, and why, by name."""
        return self._starting.unready()

    def changed(self, name: str) -> str | None:
        """Why no call goes to an endpoint until its operator accepts what runs there now; `None` if calls do.

        Raises:
            EndpointNotFound: no endpoint has this name.
        """
        return self._live.find(name).changed

    async def check(self, name: str, *, within: float | None = None) -> Endpoint:
        """Look whether the registered model still answers; what runs there now.

        Raises:
            EndpointNotFound: no endpoint has this name.
            EndpointChanged: it is another model; calls are refused from now on, until it is accepted.
            HubgateError: it does not answer.
        """
        asked = self._live.find(name)
        proven, model = await prove(self._sources, asked.target, within, any_dimensions=True)
        await model.close()
        live = self._live.find(name)  # which serves under other settings, if they were changed meanwhile
        if proven.endpoint.task not in GENERATION_TASKS and not is_another(asked.endpoint, live.endpoint):
            live.changed = what_changed(live.endpoint.facts, proven.endpoint.facts)
        if live.changed is not None:
            raise refusal(name, live.changed)
        self._starting.ready(name)
        return proven.endpoint

    async def diagnose(
        self, endpoint: Endpoint, token: Secret | None = None, *, keep_token: bool = False
    ) -> AsyncIterator[Finding]:
        """Go the way to a model, registered or not, and tell of each step. The audit log has every diagnosis.

        Args:
            endpoint: as it is, or as it is to be.
            token: of its own.
            keep_token: whether its stored one is used, as by `edit`.

        Raises:
            InvalidEndpoint: a stored token may not be sent there.
            StoreFailed: the audit log cannot be written.
        """
        if keep_token and not endpoint.connection:
            token = await self._own_token(self._live.find(endpoint.name), endpoint)
        target = await self._resolve(endpoint, token)
        await self._token_guard.note_diagnosis(endpoint)
        return diagnose(self._sources, target)

    async def rotate_secret(self) -> int:
        """Seal every stored token under a new secret key; how many were sealed.

        Raises:
            StoreFailed: the key cannot be changed here; says how it can.
        """
        return await self._store.rotate_secret()

    async def _check_in_turn(self, name: str) -> None:
        """Check an endpoint as one caller among others, with permits of its rate limit."""
        if (health := self._live.find(name).pipeline.health) is None:
            return
        permit = await health.limiter.take()
        try:
            with sending_under(permit):
                await self.check(name, within=_CHECK_SECONDS)
        finally:
            health.limiter.done(permit)

    async def _load(self, name: str) -> None:
        live = self._live.find(name)
        await ask_once(live.endpoint, live.model)

    async def _make_ready(self, draft: Endpoint) -> None:
        try:
            await self.register(draft, None)
            await self._store.set_note(_READY_NOTE, draft.name)
        except HubgateError as error:
            _log.error("endpoint %s could not be registered: %s", draft.name, error)
