"""Deploying a model, step by step: what is wanted, the hardware, the plan with its price, and its confirmation.

The first three only read, so they are GETs whose URL has the whole form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from hubgate.domain.deployments import Misfit, Plan
from hubgate.domain.errors import HubgateError
from hubgate.service.deployments.deployer import Deployer
from hubgate.service.deployments.tokens import Owner
from hubgate.service.gateway import Gateway
from hubgate.web.console.deployments.form import (
    ACCESSES,
    DEFAULTS,
    ENGINES,
    HARDWARE,
    TASKS,
    hardware_field,
    request_of,
    sent_form,
)
from hubgate.web.console.deployments.page import hub_connections, path_of
from hubgate.web.console.models.form import KINDS
from hubgate.web.console.page_context import PageContext


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
