"""Follows Inference Endpoints that hubgate created until they are registered, or cannot be.

All it knows is in the store, so it goes on where another process stopped. Several gateways may run it: each round
belongs to the one that holds the lock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from hubgate.domain.endpoint import Endpoint, Source
from hubgate.domain.errors import EndpointNotFound, HubgateError, InUse, NotFound, StoreFailed
from hubgate.domain.hub import Deployment, DeploymentState
from hubgate.domain.secret import Secret
from hubgate.features.deployments.accounts import Accounts
from hubgate.features.deployments.fit import cost_now, hardware_of
from hubgate.features.deployments.hub import InferenceEndpoints
from hubgate.features.deployments.model import BILLED, ManagedDeployment, Stage
from hubgate.features.deployments.store import SqlDeployments
from hubgate.service.registry.registry import Registry
from hubgate.store.audit_log import SqlAudit

LOST_SECONDS = 45.0
"""How long a request to create may be under way (15 seconds), and Hugging Face may take to show what it created."""
FAST_SECONDS, SLOW_SECONDS = 5.0, 30.0
SLOW_AFTER_SECONDS = 300.0
DEADLINE_SECONDS = 1800.0
IDLE_SECONDS = 60.0
"""Between looks at the store while there is nothing to follow: another gateway may have created something."""
_BROKEN = frozenset({DeploymentState.FAILED, DeploymentState.UPDATE_FAILED})
_ANSWERING = frozenset({DeploymentState.RUNNING, DeploymentState.SCALED_TO_ZERO})

_log = logging.getLogger(__name__)


class Follower:
    """Takes deployments from stage to stage.

    Args:
        api: of Inference Endpoints.
        accounts: for the tokens of connections.
        store: has the deployments.
        registry: registers those that run.
        audit: gets an entry when one is registered, or fails.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        api: InferenceEndpoints,
        accounts: Accounts,
        store: SqlDeployments,
        registry: Registry,
        audit: SqlAudit,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._accounts = accounts
        self._store = store
        self._registry = registry
        self._audit = audit
        self._clock = clock
        self._due: dict[str, float] = {}
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Look at the store now: there is something to follow."""
        self._changed.set()

    async def run(self) -> None:
        """Follow deployments until cancelled."""
        while True:
            self._changed.clear()
            try:
                following = await self.follow()
            except StoreFailed as error:
                _log.error("deployments cannot be followed, retrying: %s", error)
                following = True
            except Exception:  # noqa: BLE001 - what is not followed may cost
                _log.exception("deployments cannot be followed, retrying")
                following = True
            try:
                async with asyncio.timeout(FAST_SECONDS if following else IDLE_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def follow(self) -> bool:
        """Look once at every deployment that is due; returns whether there is any to follow."""
        now = self._clock()
        if not any(self._is_followed(one, now) for one in await self._store.all()):
            return False
        try:
            async with self._store.leading():
                due = [
                    one
                    for one in await self._store.all()
                    if self._is_followed(one, now) and self._due.get(one.id, 0.0) <= now
                ]
                await asyncio.gather(*(self._look(one) for one in due))
        except InUse:
            pass  # another gateway follows them
        return True

    def _is_followed(self, one: ManagedDeployment, now: float) -> bool:
        """Lost ones may still appear, so hubgate asks for as long as it waits for others."""
        if one.stage is Stage.UNKNOWN:
            return now - one.started_at <= DEADLINE_SECONDS
        return not one.stage.is_final

    async def _look(self, one: ManagedDeployment) -> None:
        age = self._clock() - one.started_at
        is_slow = age > SLOW_AFTER_SECONDS or one.stage is Stage.UNKNOWN
        self._due[one.id] = self._clock() + (SLOW_SECONDS if is_slow else FAST_SECONDS)
        token = self._accounts.token(one.connection)
        try:
            if token is None:
                raise NotFound(f"The connection [{one.connection}] has no token for Hugging Face.")
            deployment = await self._ask(one, token)
        except HubgateError as error:
            _log.warning("deployment %s cannot be followed now: %s", one.name, error)
            if age > DEADLINE_SECONDS:
                await self._fail(one, None, token, f"Its state cannot be read: {error.message}")
            return
        try:
            await self._advance(one, deployment, token)
        except HubgateError as error:
            _log.error("deployment %s: %s", one.name, error)

    async def _ask(self, one: ManagedDeployment, token: Secret) -> Deployment | None:
        """The Inference Endpoint; `None` if there is none, or it is not the one that was created."""
        try:
            found = await self._api.show(one.namespace, one.name, token)
        except NotFound:
            return None
        is_lost = one.stage in {Stage.PLANNED, Stage.UNKNOWN}
        return None if is_lost and one.tag not in found.tags else found

    async def _advance(self, one: ManagedDeployment, found: Deployment | None, token: Secret) -> None:
        if found is None:
            await self._absent(one, token)
            return
        if one.stage in {Stage.PLANNED, Stage.UNKNOWN}:
            _log.info("deployment %s was created: its tag is there", one.name)
            one = await self._save(one, Stage.CREATED)
            await self._record("deployment.found", one)
        if found.state in _BROKEN:
            await self._fail(
                one, found, token, f"Hugging Face could not start it: {found.status_message}".strip(": ")
            )
        elif found.paused:
            await self._fail(one, found, token, "It was paused before it was registered.")
        elif found.state in _ANSWERING and found.url:
            await self._register(await self._save(one, Stage.RUNNING), found, found.url, token)
        elif self._clock() - one.started_at > DEADLINE_SECONDS:
            await self._fail(one, found, token, f"It is not ready after 30 minutes: it is {found.state}.")
        elif found.state is DeploymentState.PENDING:
            await self._save(one, Stage.CREATED)
        else:
            await self._save(one, Stage.INITIALIZING)

    async def _absent(self, one: ManagedDeployment, token: Secret) -> None:
        if one.stage not in {Stage.PLANNED, Stage.UNKNOWN}:
            await self._fail(one, None, token, "It was deleted.")
        elif one.stage is Stage.PLANNED and self._clock() - one.started_at > LOST_SECONDS:
            message = (
                "Whether it was created is unknown: the reply was lost, and Hugging Face does not show it. hubgate "
                f"does not create it again. Check https://endpoints.huggingface.co for the tag {one.tag}, or make a "
                "new plan."
            )
            await self._save(one, Stage.UNKNOWN, message)
            await self._record("deployment.lost", one)
            _log.error("deployment %s: %s", one.name, message)

    async def _register(self, one: ManagedDeployment, found: Deployment, url: str, token: Secret) -> None:
        try:
            await self._put(one, url)
        except HubgateError as error:
            if error.retryable and self._clock() - one.started_at <= DEADLINE_SECONDS:
                await self._save(one, Stage.RUNNING, f"It does not answer yet. {error.message}")
                return
            await self._fail(one, found, token, f"It runs, but could not be registered. {error}")
            return
        await self._save(replace(one, url=url), Stage.REGISTERED)
        await self._record("deployment.register", one, endpoint=one.register_as)
        _log.info("deployment %s is registered as %s", one.name, one.register_as)

    async def _put(self, one: ManagedDeployment, url: str) -> None:
        """Register an endpoint, or give it the new URL. After a crash, it may be there already."""
        try:
            existing = self._registry.find(one.register_as)
        except EndpointNotFound:
            draft = Endpoint(
                name=one.register_as,
                task=one.task,
                source=Source.DEDICATED,
                url=url,
                model=one.repository,
                namespace=one.namespace,
                connection=one.connection,
            )
            await self._registry.register(draft, None)
            return
        if existing.url == one.url and one.url is not None and existing.url != url:
            await self._registry.edit(replace(existing, url=url))
        elif existing.url != url:
            raise InUse(
                f"Another endpoint is named [{one.register_as}].",
                remedy=f"Register this one under another name: hubgate add NAME --url {url}",
            )

    async def _fail(
        self, one: ManagedDeployment, found: Deployment | None, token: Secret | None, reason: str
    ) -> None:
        """Give up on a deployment. It is left as it is, with what it costs, unless the operator wants it deleted."""
        if one.delete_on_failure and token is not None:
            try:
                await self._api.delete(one.namespace, one.name, token)
                reason = f"{reason} It was deleted."
                found = None
            except HubgateError as error:
                reason = f"{reason} Deleting it failed: {error.message}"
        message = reason if found is None else f"{reason} {await self._cost(one, found, token)}"
        await self._save(one, Stage.FAILED, message.strip())
        await self._record("deployment.fail", one, reason=reason)
        _log.error("deployment %s: %s", one.name, message)

    async def _cost(self, one: ManagedDeployment, found: Deployment, token: Secret | None) -> str:
        if found.state not in BILLED:
            return "It costs nothing now." if found.state is not DeploymentState.UNKNOWN else ""
        dollars: float | None = None
        if token is not None:
            try:
                hardware = await self._api.hardware(one.namespace, token)
                dollars = cost_now(found, hardware_of(found, hardware))
            except HubgateError:
                pass
        price = one.price.replica if dollars is None else dollars
        name = f"{one.name} --namespace {one.namespace}"
        return (
            f"It costs ${price:g} an hour until it is paused (`hubgate deploy pause {name}`) or deleted "
            f"(`hubgate deploy delete {name}`)."
        )

    async def _save(self, one: ManagedDeployment, stage: Stage, message: str = "") -> ManagedDeployment:
        changed = replace(one, stage=stage, message=message)
        if changed != one:
            await self._store.save(changed)
        return changed

    async def _record(self, verb: str, one: ManagedDeployment, **changes: str) -> None:
        await self._audit.record(
            verb, f"{one.namespace}/{one.name}", {name: [None, value] for name, value in changes.items()}
        )
