"""The cost guard: counts what Inference Endpoints cost, pauses those that nobody needs, and resumes them.

Once a minute it reads the states of those that hubgate created. Of several gateways, the one with the lease does it,
for a minute at a time, and the others follow what it stored; one whose calls wait for a resume also looks. All go by the
clock of the database, so theirs do not matter. Calls at other gateways are not seen, so with a shared
database nothing is paused for being idle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Literal, NamedTuple

from hubgate.core.deployments.costs import Reading, spent_between
from hubgate.core.deployments.guard_rules import Reason, Rules, Seen, pause_reason, resumes
from hubgate.core.deployments.prices import cost_at_most, hardware_of
from hubgate.domain.deployment_ports import (
    CostRow,
    DeploymentStore,
    GuardStore,
    InferenceEndpoints,
    Leases,
    Watched,
)
from hubgate.domain.deployments import BILLED, Hardware, ManagedDeployment, Stage
from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import HubgateError, InUse, InvalidEndpoint
from hubgate.domain.hub import Deployment, DeploymentState
from hubgate.domain.ports import AuditLog
from hubgate.domain.secret import Secret
from hubgate.service.deployments.budget import Budget
from hubgate.service.deployments.tokens import Accounts
from hubgate.service.deployments.wake_barrier import WakeBarrier
from hubgate.service.registry.live_endpoints import LiveEndpoints

ROUND_SECONDS = 60.0
WAKING_SECONDS = 5.0
"""Between rounds while calls wait for an endpoint that is being resumed."""
_LEASE = "cost guard"
_PRICES_SECONDS = 3600.0
_COSTS_MONEY = BILLED | {DeploymentState.UPDATE_FAILED}

_log = logging.getLogger(__name__)


class GuardAct(NamedTuple):
    """What the guard would do."""

    deployment: str
    """NAMESPACE/NAME."""
    verb: str
    """`pause` or `resume`."""
    reason: Reason
    before: float | None
    """US dollars an hour at most; `None` if unknown."""
    after: float | None


class FailedPause(NamedTuple):
    """An Inference Endpoint that should be paused, and costs money."""

    namespace: str
    name: str
    connection: str
    since: float
    """Seconds since the epoch."""
    dollars: float
    """An hour."""


class CostGuard:
    """Guards the Inference Endpoints that hubgate created.

    Args:
        api: of Inference Endpoints.
        accounts: for the tokens of connections.
        deployments: those that hubgate created.
        store: has the costs, and what was seen last.
        leases: say which gateway's turn it is, and the time.
        live: has the endpoints that use them.
        budget: may forbid a resume.
        audit: gets an entry for each act.
        follow: called when a deployment was resumed, so that its URL is read again.
        shared: whether other gateways use the same database.
        clock: seconds since the epoch; by default, by the clock of the database.
    """

    def __init__(
        self,
        *,
        api: InferenceEndpoints,
        accounts: Accounts,
        deployments: DeploymentStore,
        store: GuardStore,
        leases: Leases,
        live: LiveEndpoints,
        budget: Budget,
        audit: AuditLog,
        follow: Callable[[], None],
        shared: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._api = api
        self._accounts = accounts
        self._deployments = deployments
        self._store = store
        self._leases = leases
        self._live = live
        self._budget = budget
        self._audit = audit
        self._follow = follow
        self._shared = shared
        self._clock = clock or leases.now
        self._due = asyncio.Event()
        self._prices: dict[str, tuple[float, Sequence[Hardware]]] = {}
        self._totals: Mapping[str, float] = {}
        self.failing: frozenset[str] = frozenset()
        """Deployments whose pause failed, as of the last round: they cost money."""

    def dollars(self) -> Mapping[str, float]:
        """What each deployment cost since the beginning, as of the last round."""
        return self._totals

    async def run(self) -> None:
        """Guard until cancelled."""
        while True:
            self._due.clear()
            try:
                await self.round()
            except HubgateError as error:
                _log.error("the cost guard could not do its round, retrying: %s", error)
            except Exception:  # noqa: BLE001 - what is not guarded may cost
                _log.exception("the cost guard could not do its round, retrying")
            try:
                async with asyncio.timeout(WAKING_SECONDS if self._is_waking() else ROUND_SECONDS):
                    await self._due.wait()
            except TimeoutError:
                pass

    async def round(self) -> None:
        """Look at every deployment once, and act.

        Raises:
            StoreFailed: the database cannot be used.
        """
        managed = [one for one in await self._deployments.all() if one.stage is not Stage.PLANNED]
        watched = await self._store.watched()
        self._keep_barriers(managed, watched)
        if (managed or watched) and await self._has_turn():
            try:
                async with self._store.guarding():
                    await self._guard(managed)
            except InUse:
                pass  # another gateway does
            watched = await self._store.watched()
        if managed or watched:
            self._totals = await self._store.totals()
        self.failing = frozenset(name for name, one in watched.items() if one.failing_since is not None)

    def _is_waking(self) -> bool:
        return any(barrier.wanted for barrier in self._live.barriers.values())

    async def _has_turn(self) -> bool:
        """Whether this gateway looks now: one does for all, and any does while its own calls wait."""
        return await self._leases.acquire(_LEASE, ROUND_SECONDS) is not None or self._is_waking()

    async def failed_pauses(self) -> Sequence[FailedPause]:
        """Those of the last round, of whichever gateway did it. Hugging Face is not asked."""
        watched = await self._store.watched()
        return [
            FailedPause(
                one.namespace, one.name, one.connection, seen.failing_since, seen.replicas * seen.price
            )
            for one in await self._deployments.all()
            if (seen := watched.get(_name(one))) is not None and seen.failing_since is not None
        ]

    async def preview(self) -> Sequence[GuardAct]:
        """What a round would do now. Nothing is done or stored.

        Raises:
            UpstreamError: Hugging Face cannot be asked.
        """
        watched = await self._store.watched()
        found: list[GuardAct] = []
        for one in await self._deployments.all():
            if one.stage is not Stage.REGISTERED:
                continue
            token = self._accounts.token(one.connection)
            barrier = self._live.barriers.get(one.register_as)
            if token is None or barrier is None:
                continue
            listed = await self._api.list(one.namespace, token)
            deployment = next(
                (item for item in listed if item.name == one.name and one.tag in item.tags), None
            )
            if deployment is None:
                continue
            kind = hardware_of(deployment, await self._hardware(one.namespace, token))
            seen = self._seen(one, deployment, kind, watched.get(_name(one)))
            decided = self._decide(one, deployment, seen, barrier)
            if decided is None:
                continue
            verb, reason = decided
            running = replace(deployment, state=DeploymentState.PENDING)
            after = 0.0 if verb == "pause" else cost_at_most(running, kind)
            found.append(GuardAct(_name(one), verb, reason, cost_at_most(deployment, kind), after))
        return found

    async def _guard(self, managed: Sequence[ManagedDeployment]) -> None:
        watched = await self._store.watched()
        owner = attrgetter("namespace", "connection")
        for (namespace, connection), group in groupby(sorted(managed, key=owner), owner):
            token = self._accounts.token(connection)
            if token is None:
                _log.error(
                    "Inference Endpoints of %s are not guarded: connection %s has no token",
                    namespace,
                    connection,
                )
                continue
            try:
                found = {one.name: one for one in await self._api.list(namespace, token)}
                hardware = await self._hardware(namespace, token)
            except HubgateError as error:
                _log.error("Inference Endpoints of %s cannot be guarded now: %s", namespace, error)
                continue
            for one in group:
                deployment = found.get(one.name)
                if deployment is not None and one.tag not in deployment.tags:
                    deployment = None
                seen = await self._watch(one, deployment, hardware, watched.get(_name(one)))
                if seen is not None and deployment is not None and one.stage is Stage.REGISTERED:
                    await self._act(one, deployment, seen, token)
        for name in watched.keys() - {_name(one) for one in managed}:
            await self._store.forget(name)

    async def _watch(
        self,
        one: ManagedDeployment,
        deployment: Deployment | None,
        hardware: Sequence[Hardware],
        before: Watched | None,
    ) -> Watched | None:
        """Add what was spent since the last look; `None` if it does not exist."""
        if deployment is None:
            if before is not None:
                gone = replace(before, at=self._clock(), state=DeploymentState.UNKNOWN, replicas=0)
                await self._save(gone, before)
                await self._store.forget(before.deployment)
            return None
        seen = self._seen(one, deployment, hardware_of(deployment, hardware), before)
        await self._save(seen, before or _first_look(one))
        barrier = self._live.barriers.get(one.register_as)
        if barrier is not None and (one.stage is Stage.REGISTERED or deployment.paused):
            barrier.show(seen.state, paused_by_guard=seen.paused_for is not None)
        return seen

    def _seen(
        self, one: ManagedDeployment, deployment: Deployment, kind: Hardware | None, before: Watched | None
    ) -> Watched:
        now, before = self._clock(), before or _first_look(one)
        is_up, was_up = (state is DeploymentState.RUNNING for state in (deployment.state, before.state))
        return replace(
            before,
            at=max(now, before.at),  # no minute counts twice, even if the clock is set back
            state=deployment.state,
            replicas=_billed(deployment),
            price=kind.price_per_hour if kind else before.price,
            up_since=now if is_up and not was_up else before.up_since,
            paused_for=before.paused_for if deployment.paused else None,
            failing_since=None if deployment.paused else before.failing_since,
        )

    async def _act(
        self, one: ManagedDeployment, deployment: Deployment, watched: Watched, token: Secret
    ) -> None:
        barrier = self._live.barriers.get(one.register_as)
        decided = self._decide(one, deployment, watched, barrier) if barrier else None
        if barrier is None or decided is None:
            return
        verb, reason = decided
        if verb == "pause":
            await self._pause(one, watched, barrier, reason, token)
        else:
            await self._resume(one, deployment, watched, reason, token)

    def _decide(
        self, one: ManagedDeployment, deployment: Deployment, watched: Watched, barrier: WakeBarrier
    ) -> tuple[Literal["pause", "resume"], Reason] | None:
        now = self._clock()
        seen = Seen(
            state=watched.state,
            busy=self._live.is_busy(one.register_as),
            last_use=max(barrier.last_call, watched.up_since),
            paused_for=Reason(watched.paused_for) if watched.paused_for else None,
        )
        reason = pause_reason(barrier.rules, seen, now)
        if reason is not None and not (self._shared and reason is Reason.IDLE):
            return "pause", reason
        if resumes(barrier.rules, seen, now):
            return "resume", Reason.HOURS
        if barrier.wanted and seen.paused_for is not None and deployment.paused:
            return "resume", Reason.CALL
        return None

    async def _pause(
        self, one: ManagedDeployment, watched: Watched, barrier: WakeBarrier, reason: Reason, token: Secret
    ) -> None:
        barrier.hold()  # nothing was awaited since the calls were counted
        try:
            deployment = await self._api.pause(one.namespace, one.name, token)
        except HubgateError as error:
            cost = watched.replicas * watched.price
            _log.error(
                "%s could not be paused (%s) and costs $%g an hour: %s", _name(one), reason, cost, error
            )
            failing = replace(watched, failing_since=watched.failing_since or self._clock())
            await self._store.save(failing, ())
            barrier.show(watched.state, paused_by_guard=False)
            return
        paused = replace(
            watched,
            at=self._clock(),
            state=deployment.state,
            replicas=_billed(deployment),
            paused_for=reason.value,
            failing_since=None,
        )
        await self._save(paused, watched)
        barrier.show(deployment.state, paused_by_guard=True)
        await self._record("pause", one, reason, watched.replicas * watched.price, 0.0)

    async def _resume(
        self, one: ManagedDeployment, deployment: Deployment, watched: Watched, reason: Reason, token: Secret
    ) -> None:
        kind = hardware_of(deployment, await self._hardware(one.namespace, token))
        after = cost_at_most(replace(deployment, state=DeploymentState.PENDING), kind)
        try:
            async with self._budget.spending(one.namespace, one.name, token, after):
                resumed = await self._api.resume(one.namespace, one.name, token)
        except HubgateError as error:
            _log.error("%s could not be resumed (%s): %s", _name(one), reason, error)
            return
        seen = replace(
            watched, at=self._clock(), state=resumed.state, replicas=_billed(resumed), paused_for=None
        )
        await self._save(seen, watched)
        await self._record("resume", one, reason, 0.0, after)
        again = replace(
            one, stage=Stage.CREATED, started_at=self._clock(), message="", delete_on_failure=False
        )
        await self._deployments.save(again)
        self._follow()

    async def _save(self, seen: Watched, before: Watched) -> None:
        spent = spent_between(_reading(before), _reading(seen))
        rows = [CostRow(one.day, seen.deployment, one.minutes, one.dollars) for one in spent]
        await self._store.save(seen, rows)

    async def _hardware(self, namespace: str, token: Secret) -> Sequence[Hardware]:
        until, hardware = self._prices.get(namespace, (0.0, ()))
        if self._clock() >= until:
            hardware = await self._api.hardware(namespace, token)
            self._prices[namespace] = (self._clock() + _PRICES_SECONDS, hardware)
        return hardware

    async def _record(
        self, verb: str, one: ManagedDeployment, reason: Reason, before: float, after: float | None
    ) -> None:
        _log.info("%sd %s (%s)", verb, _name(one), reason)
        changes = {"dollars_per_hour": [before, after], "reason": [None, reason.value]}
        await self._audit.record(f"deployment.{verb}", _name(one), changes)

    def _keep_barriers(self, managed: Sequence[ManagedDeployment], watched: Mapping[str, Watched]) -> None:
        """Put a barrier before each endpoint whose Inference Endpoint hubgate created."""
        wanted: dict[str, WakeBarrier] = {}
        for one in managed:
            endpoint = self._endpoint_of(one)
            if endpoint is None:
                continue
            barrier = self._live.barriers.get(endpoint.name) or WakeBarrier(
                endpoint.name, one.name, self._due.set, clock=self._clock
            )
            barrier.rules = _rules(endpoint)
            wanted[endpoint.name] = barrier
            seen = watched.get(_name(one))
            if seen is not None and one.stage is Stage.REGISTERED:
                barrier.show(seen.state, paused_by_guard=seen.paused_for is not None)
        self._live.set_barriers(wanted)

    def _endpoint_of(self, one: ManagedDeployment) -> Endpoint | None:
        if one.register_as not in self._live:
            return None
        endpoint = self._live.find(one.register_as).endpoint
        return endpoint if endpoint.namespace == one.namespace else None


def _first_look(one: ManagedDeployment) -> Watched:
    return Watched(
        deployment=_name(one),
        at=one.started_at,
        state=DeploymentState.PENDING,
        replicas=0,
        price=one.price.replica,
        up_since=one.started_at,
    )


def _name(one: ManagedDeployment) -> str:
    return f"{one.namespace}/{one.name}"


def _billed(deployment: Deployment) -> int:
    if deployment.state not in _COSTS_MONEY:
        return 0
    target = deployment.target_replicas
    return max(1 if target is None else target, deployment.ready_replicas or 0)


def _reading(seen: Watched) -> Reading:
    return Reading(seen.at, seen.replicas, seen.price)


def _rules(endpoint: Endpoint) -> Rules:
    try:
        return Rules.of(endpoint)
    except InvalidEndpoint as error:
        _log.error("the wake settings of endpoint %s are ignored: %s", endpoint.name, error)
        return Rules()
