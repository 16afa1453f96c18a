"""The pages of Inference Endpoints: the list, one of them and what can be done to it, and deploying a model.

A model is deployed step by step: what is wanted, the hardware, the plan with its price, and its confirmation. The first three
only read, so they are GETs whose URL has the whole form; so it has no secrets. Environment variables and registry passwords
are for the API and the command line.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import Response

from hubgate.domain.endpoint import Endpoint, Task
from hubgate.domain.errors import EndpointNotFound, HubgateError, InvalidRequest, NotFound
from hubgate.domain.hub import DeploymentState
from hubgate.features.deployments.accounts import Owner
from hubgate.features.deployments.acts import Act, Done, Listed
from hubgate.features.deployments.api import CREATE
from hubgate.features.deployments.deployer import Deployer
from hubgate.features.deployments.fields import CREATED, Access, DeploymentForm, Field
from hubgate.features.deployments.fit import VARIANTS
from hubgate.features.deployments.model import Hardware, Misfit, Plan
from hubgate.service.gateway import Gateway
from hubgate.web.console.models.form import KINDS
from hubgate.web.console.page_context import PageContext
from hubgate.web.parts import Page

HARDWARE = "hardware"
"""The field of the chosen hardware: vendor, region and instance, separated by spaces."""
_FIELDS = tuple(field for field in CREATED if field.setting.in_console)
_FORM = (*(field.name for field in _FIELDS), HARDWARE)
ACCESSES = tuple(Access)
ENGINES = tuple(VARIANTS)
TASKS = tuple(Task)
DEFAULTS: Mapping[str, str] = {
    field.name: str(field.default)
    for field in _FIELDS
    if isinstance(field.default, str | int) and field.default is not False
}


def sent_form(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields of this form among those that a browser sent, with spaces removed."""
    return {name: fields[name].strip() for name in _FORM if name in fields}


def request_of(form: Mapping[str, str]) -> DeploymentForm:
    """What the form asks for; what is empty is chosen by hubgate.

    Raises:
        InvalidRequest: a field is invalid.
    """
    if not form.get("model"):
        raise InvalidRequest(
            "[model] is missing.", remedy="Enter the name of a repository, such as org/name."
        )
    made: dict[str, Any] = {
        field.name: _value(field, form[field.name]) for field in _FIELDS if form.get(field.name)
    }
    if form.get("zero_after") == "":
        made["zero_after"] = None
    if hardware := form.get(HARDWARE):
        names = hardware.split(" ")
        if len(names) != 3:
            raise InvalidRequest("The form names no hardware.", remedy="Choose it again.")
        made["vendor"], made["region"], made["instance"] = names
    return CREATE.convert(made)


def hardware_field(hardware: Hardware) -> str:
    """The value of `HARDWARE`."""
    return f"{hardware.vendor} {hardware.region} {hardware.instance}"


def _value(field: Field, text: str) -> object:
    """Whole numbers may have the digits of any language; a ticked box has some text."""
    if field.base_type is bool:
        return True
    if field.base_type is not int:
        return text
    if not text.isdecimal() or len(text) > 9:
        raise InvalidRequest(f"[{field.name}] must be a whole number.")
    return int(text)


AUDIT_VERBS = tuple(
    f"deployment.{verb}"
    for verb in ("create", "edit", "pause", "resume", "zero", "delete", "register", "fail", "lost", "found")
)
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


class Deploying:
    """The steps from a model to an Inference Endpoint that is being created."""

    def __init__(self, gateway: Gateway, deployer: Deployer) -> None:
        self._gateway = gateway
        self._deployer = deployer

    async def new(self, context: PageContext) -> Response:
        """The form; `?model=` and other fields fill it in."""
        return await self._form(context, {**DEFAULTS, **sent_form(context.request.query_params)})

    async def hardware(self, context: PageContext) -> Response:
        """What the model fits on, with price and quota."""
        form = sent_form(context.request.query_params)
        try:
            request = request_of({name: text for name, text in form.items() if name != HARDWARE})
            offer = await self._deployer.planner.offer(request)
        except HubgateError as error:
            return await self._form(context, form, error)
        fits = sorted(offer.fits, key=lambda fit: fit.misfit is not None)
        chosen = form.get(HARDWARE) or next(
            (hardware_field(fit.hardware) for fit in fits if not fit.misfit), ""
        )
        return context.render(
            "deployments/hardware.html",
            offer=offer,
            rows=[(fit, hardware_field(fit.hardware)) for fit in fits],
            chosen=chosen,
            choosable=(None, Misfit.MEMORY),
            **_carried(form, without=HARDWARE),
        )

    async def plan(self, context: PageContext) -> Response:
        """The exact request and its price. Nothing is created."""
        form = sent_form(context.request.query_params)
        try:
            plan = await self._deployer.plan(request_of(form))
        except HubgateError as error:
            return await self._form(context, form, error)
        return _plan_page(context, form, plan)

    async def create(self, context: PageContext) -> Response:
        """Create what was planned; if that is refused, for example because the price has changed, plan again."""
        sent = await context.form()
        form = sent_form(sent)
        try:
            created = await self._deployer.create(request_of(form), sent.get("confirm", ""))
        except HubgateError as refusal:
            try:
                plan = await self._deployer.plan(request_of(form))
            except HubgateError as error:
                return await self._form(context, form, error)
            return _plan_page(context, form, plan, refusal)
        return context.redirect(path_of(created.namespace, created.name, created.connection))

    async def _form(
        self, context: PageContext, form: Mapping[str, str], error: HubgateError | None = None
    ) -> Response:
        """The form, if the token may manage Inference Endpoints: otherwise filling it in would be for nothing."""
        connections = hub_connections(self._gateway)
        chosen = form.get("connection") or next(iter(connections), "")
        owner: Owner | None = None
        if chosen:
            try:
                owner = await self._deployer.accounts.owner(chosen, manages=True)
            except HubgateError as refusal:
                error = refusal
        return context.render(
            "deployments/form.html",
            form={**form, "connection": chosen},
            owner=owner,
            connections=connections,
            error=error,
            faults={},
            accesses=ACCESSES,
            engines=ENGINES,
            tasks=TASKS,
            kinds=KINDS,
        )


def _plan_page(
    context: PageContext, form: Mapping[str, str], plan: Plan, error: HubgateError | None = None
) -> Response:
    return context.render(
        "deployments/plan.html",
        plan=plan,
        body=json.dumps(plan.body, indent=2, ensure_ascii=False),
        error=error,
        **_carried({**form, HARDWARE: hardware_field(plan.wanted.hardware)}),
    )


def _carried(form: Mapping[str, str], without: str = "") -> dict[str, Any]:
    """The form for the next step, and its URL query for the steps before."""
    return {
        "carried": {name: text for name, text in form.items() if name != without},
        "query": urlencode(form),
    }


def pages(deployer: Deployer, gateway: Gateway) -> Sequence[Page]:
    """All pages. `new` is before the pages of one Inference Endpoint, whose paths would match it."""
    page, deploying = DeploymentsPage(gateway, deployer), Deploying(gateway, deployer)
    one = "/ui/deployments/{namespace}/{name}"
    return (
        Page("GET", "/ui/deployments", page.show),
        Page("GET", "/ui/deployments/new", deploying.new),
        Page("GET", "/ui/deployments/hardware", deploying.hardware),
        Page("GET", "/ui/deployments/plan", deploying.plan),
        Page("POST", "/ui/deployments/plan", deploying.create),
        Page("GET", one, page.detail),
        Page("GET", f"{one}/progress", page.progress, polling=True),
        Page("GET", f"{one}/{{verb}}", page.ask),
        Page("POST", f"{one}/{{verb}}", page.act),
    )
