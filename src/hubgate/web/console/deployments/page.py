"""The Inference Endpoints of a namespace: the list, one of them, and what can be done to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from hubgate.domain.endpoint import Endpoint
from hubgate.domain.errors import EndpointNotFound, HubgateError, InvalidRequest, NotFound
from hubgate.domain.hub import DeploymentState
from hubgate.service.deployments.acts import Act, Done, Listed
from hubgate.service.deployments.deployer import Deployer
from hubgate.service.gateway import Gateway
from hubgate.web.console.page_context import PageContext

VERBS = ("resume", "pause", "zero", "delete")
_MOVING = frozenset({DeploymentState.PENDING, DeploymentState.INITIALIZING, DeploymentState.UPDATING})
_STOPPED = frozenset({DeploymentState.PAUSED, DeploymentState.UNKNOWN})
_UP = frozenset({DeploymentState.RUNNING, DeploymentState.UPDATE_FAILED})


@dataclass(frozen=True, slots=True)
class Row:
    """An Inference Endpoint on a page."""

    listed: Listed
    endpoint: Endpoint | None
    """The one that hubgate registered for it."""
    connection: str

    @property
    def is_moving(self) -> bool:
        """Whether its state changes by itself."""
        managed = self.listed.managed
        is_followed = managed is not None and not managed.stage.is_final
        return is_followed or self.listed.deployment.state in _MOVING

    @property
    def verbs(self) -> Sequence[str]:
        """What can be done to it now."""
        state = self.listed.deployment.state
        allowed = {
            "resume": state is DeploymentState.PAUSED,
            "pause": state not in _STOPPED,
            "zero": state in _UP and self.listed.deployment.min_replicas == 0,
            "delete": True,
        }
        return [verb for verb in VERBS if allowed[verb]]

    def url(self, action: str = "") -> str:
        one = self.listed.deployment
        return path_of(one.namespace, one.name, self.connection, action)


class DeploymentsPage:
    def __init__(self, gateway: Gateway, deployer: Deployer) -> None:
        self._gateway = gateway
        self._deployer = deployer

    async def show(self, context: PageContext) -> Response:
        """The list of a namespace, with the error if Hugging Face cannot be asked."""
        query, connections = context.request.query_params, hub_connections(self._gateway)
        connection = query.get("connection") or next(iter(connections), "")
        rows: Sequence[Row] = ()
        namespaces: Sequence[str] = ()
        namespace, error = query.get("namespace", ""), None
        if connection:
            try:
                owner = await self._deployer.accounts.owner(connection)
                namespaces = (owner.user.name, *owner.user.organisations)
                namespace = namespace or owner.user.name
                found = await self._deployer.list(connection, namespace)
                rows = [self._row(one, connection) for one in found]
            except HubgateError as failure:
                error = failure
        done = query.get("done", "")
        return context.render(
            "deployments/list.html" if context.is_htmx else "deployments/page.html",
            rows=rows,
            now=_sum([row.listed.now for row in rows]),
            at_most=_sum([row.listed.at_most for row in rows]),
            connections=connections,
            connection=connection,
            namespaces=namespaces,
            namespace=namespace,
            error=error,
            done=done if done in VERBS else "",
            named=query.get("name", "")[:200],
        )

    async def detail(self, context: PageContext) -> Response:
        done = context.request.query_params.get("done", "")
        return await self._one(context, "deployments/detail.html", done=done if done in VERBS else "")

    async def progress(self, context: PageContext) -> Response:
        """The part of the page that changes."""
        return await self._one(context, "deployments/progress.html")

    async def ask(self, context: PageContext) -> Response:
        """What a verb would do and cost, and the button that does it."""
        return await self._ask(context)

    async def act(self, context: PageContext) -> Response:
        verb, form = _verb(context), await context.form()
        try:
            await self._do(context, verb, form)
        except HubgateError as error:
            return await self._ask(context, error)
        connection, namespace, name = _names(context)
        if verb == "delete":
            return context.redirect(f"/ui/deployments?done=delete&name={quote(name)}")
        return context.redirect(f"{path_of(namespace, name, connection)}&done={verb}")

    async def _one(self, context: PageContext, template: str, **values: Any) -> Response:
        connection, namespace, name = _names(context)
        listed = await self._deployer.show(connection or None, namespace, name)
        return context.render(template, row=self._row(listed, connection), **values)

    async def _ask(self, context: PageContext, error: HubgateError | None = None) -> Response:
        connection, namespace, name = _names(context)
        act: Act = (await self._do(context, _verb(context), {}, dry_run=True)).act
        return context.render(
            "deployments/act.html",
            act=act,
            error=error,
            back=path_of(namespace, name, connection),
            form={},
            faults={},
        )

    async def _do(
        self, context: PageContext, verb: str, form: Mapping[str, str], *, dry_run: bool = False
    ) -> Done:
        connection, namespace, name = _names(context)
        where = (connection or None, namespace, name)
        if verb == "resume":
            price = _price(form.get("confirm_price", ""))
            return await self._deployer.resume(*where, confirm_price=price, dry_run=dry_run)
        if verb == "delete":
            return await self._deployer.delete(
                *where, typed=form.get("typed"), force="force" in form, dry_run=dry_run
            )
        plain: Mapping[str, Callable[..., Awaitable[Done]]] = {
            "pause": self._deployer.pause,
            "zero": self._deployer.scale_to_zero,
        }
        return await plain[verb](*where, dry_run=dry_run)

    def _row(self, listed: Listed, connection: str) -> Row:
        managed, endpoint = listed.managed, None
        if managed is None:
            return Row(listed, None, connection)
        with suppress(EndpointNotFound):
            endpoint = self._gateway.registry.find(managed.register_as)
        return Row(listed, endpoint, managed.connection)


def hub_connections(gateway: Gateway) -> list[str]:
    """The names of the connections whose token may be sent to Hugging Face."""
    return [one.name for one in gateway.connections.all() if one.hub_token is not None]


def path_of(namespace: str, name: str, connection: str, action: str = "") -> str:
    """URL of an Inference Endpoint's page, or of what is done to it."""
    path = f"/ui/deployments/{quote(namespace)}/{quote(name)}"
    return f"{path}{'/' if action else ''}{action}?connection={quote(connection)}"


def _names(context: PageContext) -> tuple[str, str, str]:
    """Connection, namespace and name."""
    names = context.request.path_params
    return context.request.query_params.get("connection", ""), names["namespace"], names["name"]


def _verb(context: PageContext) -> str:
    verb: str = context.request.path_params["verb"]
    if verb not in VERBS:
        raise NotFound("The console has no such page.", remedy="Go back to its first page.")
    return verb


def _price(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest("The form has no price.", remedy="Load the page again.") from None


def _sum(amounts: Sequence[float | None]) -> float:
    return sum(amount or 0.0 for amount in amounts)
