"""The verbs on Inference Endpoints: create, edit, pause, resume, scale to zero, delete. Each is in the audit log."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from hubgate.core.off_loop import shielded
from hubgate.domain.errors import (
    HubgateError,
    InUse,
    InvalidRequest,
    NotConfirmed,
    NotFound,
    OutcomeUnknown,
)
from hubgate.domain.hub import Deployment, DeploymentState
from hubgate.domain.secret import Secret
from hubgate.features.deployments.accounts import Account, Accounts, Budget
from hubgate.features.deployments.acts import (
    Act,
    Done,
    Listed,
    act_on,
    audited,
    require_confirmation,
    scaling_after,
)
from hubgate.features.deployments.fields import DeploymentEditForm, DeploymentForm
from hubgate.features.deployments.fit import cost_at_most, hardware_of
from hubgate.features.deployments.hub import InferenceEndpoints, edit_body
from hubgate.features.deployments.model import (
    DeploymentChanges,
    Hardware,
    ManagedDeployment,
    Plan,
    Stage,
)
from hubgate.features.deployments.planner import Planned, Planner
from hubgate.features.deployments.store import SqlDeployments
from hubgate.service.registry.registry import Registry
from hubgate.store.audit_log import SqlAudit

_log = logging.getLogger(__name__)


class Deployer:
    """Manages Inference Endpoints for the API, the console and the command line.

    Args:
        api: of Inference Endpoints.
        planner: makes and recognises plans.
        accounts: for tokens.
        store: has the deployments that hubgate created.
        registry: has the endpoints that use them.
        audit: gets an entry for each act.
        budget: forbids what could cost too much.
        on_change: called when a deployment should be followed.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        api: InferenceEndpoints,
        planner: Planner,
        accounts: Accounts,
        store: SqlDeployments,
        registry: Registry,
        audit: SqlAudit,
        budget: Budget,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self.planner = planner
        self.accounts = accounts
        self._store = store
        self._registry = registry
        self._audit = audit
        self._budget = budget
        self._on_change = on_change
        self._clock = clock

    async def hardware(self, connection: str | None, namespace: str | None) -> Sequence[Hardware]:
        """What a namespace may run on, cheapest first."""
        account = await self.accounts.find(connection, namespace)
        return await self._api.hardware(account.namespace, account.token)

    async def plan(self, request: DeploymentForm) -> Plan:
        """See `Planner.plan`."""
        plan = await self.planner.plan(request)
        taken = self._registry.taken(request.register_as or plan.wanted.name)
        if taken:
            plan = replace(plan, warnings=(*plan.warnings, f"{taken.message} {taken.remedy}"))
        return plan

    async def list(self, connection: str | None, namespace: str | None) -> Sequence[Listed]:
        """The Inference Endpoints of a namespace, and those that hubgate tried to create there, sorted by name."""
        account = await self.accounts.find(connection, namespace)
        return await self._list(account)

    async def list_of(self, endpoint: str) -> Sequence[Listed]:
        """The Inference Endpoints that a registered endpoint calls; none if it has no namespace or no token.

        Raises:
            EndpointNotFound: no endpoint has this name.
        """
        found, token = self._registry.find(endpoint), self._registry.token(endpoint)
        if found.namespace is None or token is None:
            return ()
        account = Account(found.connection or "", next(iter(token.each())), found.namespace)
        return [one for one in await self._list(account) if endpoint in one.used_by]

    async def _list(self, account: Account) -> Sequence[Listed]:
        hardware = await self._api.hardware(account.namespace, account.token)
        found = await self._api.list(account.namespace, account.token)
        managed = await self._managed(account.namespace)
        names = {one.name for one in found}
        absent = [_absent(one) for name, one in managed.items() if name not in names]
        listed = [self._listed(one, hardware, managed.get(one.name)) for one in (*found, *absent)]
        return sorted(listed, key=lambda one: one.deployment.name)

    async def records(self) -> Sequence[ManagedDeployment]:
        """Everything that hubgate created, with how far it is. Asks nobody."""
        return await self._store.all()

    async def show(self, connection: str | None, namespace: str | None, name: str) -> Listed:
        """Raises: NotFound."""
        _, listed = await self._find(connection, namespace, name)
        return listed

    async def create(self, request: DeploymentForm, confirm: str) -> ManagedDeployment:
        """Create an Inference Endpoint whose plan was confirmed. It is followed, and registered when it is ready.

        A lost reply is not an error: the record stays `planned` until Hugging Face has been asked.

        Raises:
            NotConfirmed: the plan was not confirmed, or its price has changed.
            InUse: the plan was carried out already.
            EndpointExists: the name to register it under is taken.
            HubgateError: Hugging Face refused; nothing was created.
        """
        planned = await self.planner.confirmed(request, confirm)
        taken = self._registry.taken(planned.register_as)
        if taken:
            raise taken
        created: list[ManagedDeployment] = []

        async def create() -> None:
            created.append(await self._create(planned, request))

        try:
            await shielded(create())
        finally:
            self._on_change()
        return created[0]

    async def edit(
        self,
        connection: str | None,
        namespace: str | None,
        name: str,
        edit: DeploymentEditForm,
        *,
        confirm_price: float | None = None,
        dry_run: bool = False,
    ) -> Done:
        """Change an Inference Endpoint. A higher price has to be confirmed.

        Raises:
            NotFound: there is none of this name.
            NotConfirmed: it would cost more than before, or more than confirmed.
            HubgateError: Hugging Face refused.
        """
        account, listed = await self._find(connection, namespace, name)
        changes = await self._changes(account, listed, edit)
        hardware = changes.hardware or listed.hardware
        after = replace(
            listed.deployment,
            # Whether a change starts a paused one is not documented, so it counts as if it did.
            state=DeploymentState.PENDING if listed.deployment.paused else listed.deployment.state,
            max_replicas=changes.scaling.max_replicas if changes.scaling else listed.deployment.max_replicas,
        )
        act = act_on("edit", listed, cost_at_most(after, hardware), body=edit_body(changes))
        if not act.body:
            raise InvalidRequest("There is nothing to change.")

        async def do() -> Deployment:
            edited, ignored = await self._api.edit(account.namespace, name, changes, account.token)
            if ignored:
                _log.warning("Hugging Face ignored fields of a change of %s: %s", name, ", ".join(ignored))
            return edited

        return await self._carry_out(act, account, listed, do, confirm_price=confirm_price, dry_run=dry_run)

    async def pause(
        self, connection: str | None, namespace: str | None, name: str, *, dry_run: bool = False
    ) -> Done:
        """Pause an Inference Endpoint: it costs nothing, and does not wake up by itself."""
        account, listed = await self._find(connection, namespace, name)
        act = act_on("pause", listed, 0.0)
        return await self._carry_out(
            act,
            account,
            listed,
            lambda: self._api.pause(account.namespace, name, account.token),
            dry_run=dry_run,
        )

    async def resume(
        self,
        connection: str | None,
        namespace: str | None,
        name: str,
        *,
        confirm_price: float | None = None,
        dry_run: bool = False,
        token: Secret | None = None,
    ) -> Done:
        """Resume a paused Inference Endpoint. Its price has to be confirmed.

        Args:
            connection: the name of a connection.
            namespace: whose it is.
            name: its name.
            confirm_price: US dollars an hour that it may cost at most.
            dry_run: only return what would be done.
            token: one that is not a connection's; it requires a namespace.

        Raises:
            NotConfirmed: the price was not confirmed, or is higher than confirmed.
            NotPermitted: the namespace could cost more than the limit.
        """
        account, listed = await self._find(connection, namespace, name, token)
        resumed = replace(listed.deployment, state=DeploymentState.PENDING)
        act = act_on("resume", listed, cost_at_most(resumed, listed.hardware))
        return await self._carry_out(
            act,
            account,
            listed,
            lambda: self._api.resume(account.namespace, name, account.token),
            confirm_price=confirm_price,
            dry_run=dry_run,
        )

    async def scale_to_zero(
        self, connection: str | None, namespace: str | None, name: str, *, dry_run: bool = False
    ) -> Done:
        """Scale an Inference Endpoint to zero: it costs nothing until the next call wakes it."""
        account, listed = await self._find(connection, namespace, name)
        if listed.deployment.paused:  # a call could wake it then, although nobody confirmed what that costs
            raise InvalidRequest(
                f"The Inference Endpoint [{name}] is paused: it costs nothing already.",
                remedy="Resume it, if calls should wake it.",
            )
        act = act_on("zero", listed, listed.at_most)
        return await self._carry_out(
            act,
            account,
            listed,
            lambda: self._api.scale_to_zero(account.namespace, name, account.token),
            dry_run=dry_run,
        )

    async def delete(
        self,
        connection: str | None,
        namespace: str | None,
        name: str,
        *,
        typed: str | None = None,
        force: bool = False,
        dry_run: bool = False,
    ) -> Done:
        """Delete an Inference Endpoint for good. Registered endpoints that use it stay, and fail.

        Args:
            connection: the name of a connection.
            namespace: whose it is.
            name: its name.
            typed: the name again, as the operator typed it.
            force: delete it although endpoints use it.
            dry_run: only return what would be done.

        Raises:
            NotConfirmed: the name was not typed.
            InUse: registered endpoints use it.
        """
        account, listed = await self._find(connection, namespace, name)
        act = act_on("delete", listed, 0.0)
        if not dry_run:
            if typed != name:
                raise NotConfirmed(
                    f"Deleting [{name}] cannot be undone, so its name has to be typed.",
                    remedy=f"Send [confirm]={name}, or pass --confirm {name}.",
                )
            if listed.used_by and not force:
                raise InUse(
                    f"The Inference Endpoint [{name}] is used by {', '.join(listed.used_by)}.",
                    remedy="Remove those endpoints first, or delete it with [force].",
                )

        async def do() -> None:
            await self._api.delete(account.namespace, name, account.token)
            if listed.managed:
                await self._store.remove(listed.managed.id)

        return await self._carry_out(act, account, listed, do, dry_run=dry_run)

    async def _create(self, planned: Planned, request: DeploymentForm) -> ManagedDeployment:
        wanted, plan = planned.plan.wanted, planned.plan
        managed = ManagedDeployment(
            id=plan.id,
            namespace=wanted.namespace,
            name=wanted.name,
            connection=planned.account.connection,
            repository=wanted.repository,
            hardware=wanted.hardware.id,
            price=plan.price,
            started_at=self._clock(),
            task=planned.task,
            engine=plan.engine,
            register_as=planned.register_as,
            delete_on_failure=request.delete_on_failure,
        )
        await self._store.add(managed)
        try:
            async with self._budget.spending(
                wanted.namespace, wanted.name, planned.account.token, plan.price.at_most
            ):
                _, ignored = await self._api.create(wanted, planned.account.token)
        except OutcomeUnknown as error:
            _log.warning("deployment %s: %s", wanted.name, error)
            managed = replace(managed, message=str(error))
        except HubgateError:
            await self._store.remove(managed.id)
            raise
        else:
            warnings = tuple(f"Hugging Face ignored the field {one}." for one in ignored)
            managed = replace(managed, stage=Stage.CREATED, warnings=warnings)
        await self._audit.record(
            "deployment.create",
            f"{wanted.namespace}/{wanted.name}",
            {
                "dollars_per_hour": [0.0, plan.price.at_most],
                "model": [None, wanted.repository],
                "hardware": [None, wanted.hardware.id],
                "outcome": [None, "unknown" if managed.stage is Stage.PLANNED else "created"],
            },
        )
        await self._store.save(managed)
        await self._forget_former(managed)
        return managed

    async def _forget_former(self, managed: ManagedDeployment) -> None:
        """Drop the records of earlier deployments of this name: there can be only one at a time."""
        if managed.stage is Stage.PLANNED:
            return
        for one in await self._store.all():
            if (one.namespace, one.name) == (managed.namespace, managed.name) and one.id != managed.id:
                await self._store.remove(one.id)

    async def _carry_out(
        self,
        act: Act,
        account: Account,
        listed: Listed,
        do: Callable[[], Awaitable[Deployment | None]],
        *,
        confirm_price: float | None = None,
        dry_run: bool = False,
    ) -> Done:
        if dry_run:
            return Done(act, dry_run=True)
        require_confirmation(act, confirm_price)
        result: list[Deployment | None] = []

        async def complete() -> None:
            if act.after is None or act.before is None or act.after > act.before:
                async with self._budget.spending(account.namespace, act.name, account.token, act.after):
                    result.append(await do())
            else:
                result.append(await do())
            changes = {"dollars_per_hour": [act.before, act.after], **audited(act.body)}
            await self._audit.record(f"deployment.{act.verb}", f"{account.namespace}/{act.name}", changes)

        await shielded(complete())
        deployment = result[0]
        if act.verb == "resume" and listed.managed:
            await self._follow_again(listed.managed)
        return Done(act, listed=None if deployment is None else replace(listed, deployment=deployment))

    async def _follow_again(self, managed: ManagedDeployment) -> None:
        """Follow a resumed deployment until it runs, because its URL may be another one."""
        started = replace(
            managed, stage=Stage.CREATED, started_at=self._clock(), message="", delete_on_failure=False
        )
        await self._store.save(started)
        self._on_change()

    async def _find(
        self, connection: str | None, namespace: str | None, name: str, token: Secret | None = None
    ) -> tuple[Account, Listed]:
        if token is not None and namespace is not None:
            account = Account("", token, namespace)
        else:
            account = await self.accounts.find(connection, namespace)
        managed = (await self._managed(account.namespace)).get(name)
        try:
            deployment = await self._api.show(account.namespace, name, account.token)
        except NotFound:
            if managed is None:
                raise
            deployment = _absent(managed)
        hardware = await self._api.hardware(account.namespace, account.token)
        return account, self._listed(deployment, hardware, managed)

    async def _managed(self, namespace: str) -> Mapping[str, ManagedDeployment]:
        """The records of a namespace by name; the newest if several had the same."""
        return {one.name: one for one in await self._store.all() if one.namespace == namespace}

    def _listed(
        self,
        deployment: Deployment,
        hardware: Sequence[Hardware],
        managed: ManagedDeployment | None,
    ) -> Listed:
        if managed and deployment.tags and managed.tag not in deployment.tags:
            managed = None
        url = deployment.url or (managed.url if managed else None)
        return Listed(
            deployment=deployment,
            hardware=hardware_of(deployment, hardware),
            managed=managed,
            used_by=tuple(self._users_of(url)) if url else (),
        )

    def _users_of(self, url: str) -> Sequence[str]:
        wanted = _plain(url)
        return [
            one.name
            for one in self._registry.endpoints()
            if any(_plain(own) == wanted for own in (one.url, *one.urls) if own)
        ]

    async def _changes(self, account: Account, listed: Listed, edit: DeploymentEditForm) -> DeploymentChanges:
        current, hardware = listed.deployment, None
        if edit.instance is not None:
            hardware = next(
                (
                    one
                    for one in await self._api.hardware(account.namespace, account.token)
                    if one.instance == edit.instance and f"{one.vendor} {one.region}" == current.region
                ),
                None,
            )
            if hardware is None:
                raise InvalidRequest(
                    f"Hugging Face offers no [{edit.instance}] at {current.region}.",
                    remedy="`hubgate deploy hardware` and GET /api/deployments/hardware list what it offers.",
                )
        scaling = None
        if (edit.min_replicas, edit.max_replicas, edit.zero_after) != (None, None, None):
            scaling = scaling_after(current, edit)
        return DeploymentChanges(
            hardware=hardware,
            scaling=scaling,
            revision=edit.revision,
            arguments=edit.arguments,
            environment=edit.environment,
        )


def _absent(managed: ManagedDeployment) -> Deployment:
    """One that hubgate wanted to create, and that Hugging Face does not show."""
    return Deployment(
        name=managed.name,
        namespace=managed.namespace,
        state=DeploymentState.UNKNOWN,
        repository=managed.repository,
        engine=managed.engine,
    )


def _plain(url: str) -> str:
    return url.strip().casefold().rstrip("/").removesuffix("/v1").rstrip("/")
