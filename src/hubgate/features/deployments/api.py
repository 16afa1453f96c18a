"""`/api/deployments`: Inference Endpoints that hubgate plans, creates and manages at Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubgate.domain.errors import InvalidRequest
from hubgate.features.deployments.acts import Done, Listed
from hubgate.features.deployments.deployer import Deployer
from hubgate.features.deployments.fields import ConfirmedDeploymentForm, DeploymentEditForm, DeploymentForm
from hubgate.features.deployments.model import Fit, Hardware, ManagedDeployment, Plan
from hubgate.service.gateway import Gateway
from hubgate.web.admin.hub import TOKEN_PARAMETERS, known_fields, require_token
from hubgate.web.admin.openapi import ApiRoute, json_response
from hubgate.web.http.asgi import decode, read_json_body
from hubgate.web.schemas.validation import convert

T = TypeVar("T")
_CONNECTION = {"connection": "the stored token to use; not needed if there is only one"}
_WHERE = {**_CONNECTION, "namespace": "a user or an organisation; by default the token's owner"}
_DRY_RUN = {"dry_run": "true: only return what would be done, and what it would cost"}
CONFIRM_PRICE = {
    "confirm_price": "what it may cost at most, in US dollars an hour; needed if it costs more than before"
}
_EXAMPLE: Mapping[str, Any] = {"model": "intfloat/e5-small-v2", "name": "e5", "instance": "intel-spr/x2"}


class Json(Generic[T]):
    """Reads the JSON of a table. All methods raise `InvalidRequest`."""

    def __init__(self, table: type[T]) -> None:
        hints = get_type_hints(table)
        found = []
        for one in fields(table):  # type: ignore[arg-type]  # a dataclass
            default = {} if one.default_factory is dict else one.default
            found.append((one.name, hints[one.name], msgspec.NODEFAULT if default is MISSING else default))
        self._table = table
        self.struct = msgspec.defstruct(table.__name__, found, forbid_unknown_fields=True)
        self._decoder = msgspec.json.Decoder(self.struct)

    def read(self, body: bytes) -> T:
        return self._of(decode(body, self._decoder))

    def convert(self, values: object) -> T:
        return self._of(convert(values, self.struct))

    def _of(self, values: msgspec.Struct) -> T:
        return self._table(**msgspec.structs.asdict(values))


CREATE = Json(DeploymentForm)
CONFIRMED = Json(ConfirmedDeploymentForm)
EDIT = Json(DeploymentEditForm)


class DeploymentsApi:
    def __init__(self, deployer: Deployer, gateway: Gateway) -> None:
        self._deployer = deployer
        self._gateway = gateway

    async def hardware(self, request: Request) -> Response:
        query = request.query_params
        max_price = _number(query.get("max_price"), "max_price")
        found = await self._deployer.hardware(*_where(request))
        kept = [
            _hardware_json(one)
            for one in found
            if query.get("vendor") in (None, one.vendor)
            and query.get("region") in (None, one.region)
            and query.get("accelerator") in (None, one.accelerator)
            and (max_price is None or one.price_per_hour <= max_price)
        ]
        return json_response({"hardware": kept})

    async def plan(self, request: Request) -> Response:
        return json_response(
            _plan_json(await self._deployer.plan(CREATE.read(await read_json_body(request))))
        )

    async def create(self, request: Request) -> Response:
        form = CONFIRMED.read(await read_json_body(request))
        if _flag(request, "dry_run"):
            return json_response(_plan_json(await self._deployer.plan(form)))
        return json_response(_managed_json(await self._deployer.create(form, form.confirm)), 202)

    async def list(self, request: Request) -> Response:
        endpoint = request.query_params.get("endpoint")
        found = await (
            self._deployer.list_of(endpoint) if endpoint else self._deployer.list(*_where(request))
        )
        return json_response(
            {
                "deployments": [listed_json(one) for one in found],
                "dollars_now": round(sum(one.now or 0.0 for one in found), 4),
                "dollars_at_most": round(sum(one.at_most or 0.0 for one in found), 4),
            }
        )

    async def show(self, request: Request) -> Response:
        return json_response(listed_json(await self._deployer.show(*_named(request))))

    async def edit(self, request: Request) -> Response:
        edit = EDIT.read(await read_json_body(request))
        done = await self._deployer.edit(
            *_named(request), edit, confirm_price=confirmed_price(request), dry_run=_flag(request, "dry_run")
        )
        return _done(done)

    async def pause(self, request: Request) -> Response:
        return _done(await self._deployer.pause(*_named(request), dry_run=_flag(request, "dry_run")))

    async def resume(self, request: Request) -> Response:
        done = await self._deployer.resume(
            *_named(request), confirm_price=confirmed_price(request), dry_run=_flag(request, "dry_run")
        )
        return _done(done)

    async def resume_with_token(self, request: Request) -> Response:
        """As `resume`, with a token that need not be stored."""
        names = request.path_params
        done = await self._deployer.resume(
            None,
            names["namespace"],
            names["name"],
            confirm_price=confirmed_price(request),
            token=require_token(request, self._gateway),
        )
        return json_response(known_fields(done.listed.deployment) if done.listed else {})

    async def scale_to_zero(self, request: Request) -> Response:
        return _done(await self._deployer.scale_to_zero(*_named(request), dry_run=_flag(request, "dry_run")))

    async def delete(self, request: Request) -> Response:
        done = await self._deployer.delete(
            *_named(request),
            typed=request.query_params.get("confirm"),
            force=_flag(request, "force"),
            dry_run=_flag(request, "dry_run"),
        )
        return _done(done)

    def routes(self) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="POST",
                path="/hub/endpoints/{namespace}/{name}/resume",
                handler=self.resume_with_token,
                summary="Resumes a paused Inference Endpoint. Its price has to be confirmed.",
                query={**TOKEN_PARAMETERS, **CONFIRM_PRICE},
            ),
            ApiRoute(
                method="GET",
                path="/deployments/hardware",
                handler=self.hardware,
                summary="Lists what Inference Endpoints can run on, with price and quota, cheapest first.",
                query={
                    **_WHERE,
                    "vendor": "such as aws",
                    "region": "such as us-east-1",
                    "accelerator": "cpu, gpu or neuron",
                    "max_price": "US dollars per replica and hour",
                },
            ),
            ApiRoute(
                method="POST",
                path="/deployments/plan",
                handler=self.plan,
                summary="Plans an Inference Endpoint: the exact request, its price, and what the model fits on. Creates nothing.",
                body=CREATE.struct,
                example=_EXAMPLE,
            ),
            ApiRoute(
                method="GET",
                path="/deployments",
                handler=self.list,
                summary="Lists the Inference Endpoints of a namespace, with what they cost now and at most.",
                query={
                    **_WHERE,
                    "endpoint": "only those that this registered endpoint calls, with its own token",
                },
            ),
            ApiRoute(
                method="POST",
                path="/deployments",
                handler=self.create,
                summary="Creates an Inference Endpoint whose plan was confirmed; registers it when it is ready.",
                body=CONFIRMED.struct,
                example={**_EXAMPLE, "confirm": "…"},
                query=_DRY_RUN,
                status=202,
            ),
            *self._routes_of_one(),
        )

    def _routes_of_one(self) -> Sequence[ApiRoute]:
        one = "/deployments/{namespace}/{name}"
        return (
            ApiRoute(
                method="GET",
                path=one,
                handler=self.show,
                summary="Returns an Inference Endpoint: its state, price, progress, and the endpoints that use it.",
                query=_CONNECTION,
            ),
            ApiRoute(
                method="PATCH",
                path=one,
                handler=self.edit,
                summary="Changes hardware, replicas, revision, arguments or environment. A higher price has to be confirmed.",
                body=EDIT.struct,
                example={"max_replicas": 2},
                query={**_CONNECTION, **CONFIRM_PRICE, **_DRY_RUN},
            ),
            ApiRoute(
                method="DELETE",
                path=one,
                handler=self.delete,
                summary="Deletes an Inference Endpoint for good; 409 while registered endpoints use it.",
                query={
                    **_CONNECTION,
                    "confirm": "the name again",
                    "force": "true: delete it although endpoints use it",
                    **_DRY_RUN,
                },
            ),
            *(
                ApiRoute(
                    method="POST",
                    path=f"{one}/{verb}",
                    handler=handler,
                    summary=summary,
                    query={**_CONNECTION, **(CONFIRM_PRICE if verb == "resume" else {}), **_DRY_RUN},
                )
                for verb, handler, summary in (
                    (
                        "pause",
                        self.pause,
                        "Pauses an Inference Endpoint. It costs nothing until it is resumed.",
                    ),
                    (
                        "resume",
                        self.resume,
                        "Resumes a paused Inference Endpoint. Its price has to be confirmed.",
                    ),
                    (
                        "zero",
                        self.scale_to_zero,
                        "Scales an Inference Endpoint to zero. The next call wakes it.",
                    ),
                )
            ),
        )


def listed_json(listed: Listed) -> dict[str, Any]:
    """An Inference Endpoint, without what is unknown."""
    managed = listed.managed
    fields: dict[str, Any] = {
        **msgspec.to_builtins(listed.deployment),
        "price_per_hour": listed.hardware.price_per_hour if listed.hardware else None,
        "instance": listed.hardware.instance if listed.hardware else None,
        "dollars_now": listed.now,
        "dollars_at_most": listed.at_most,
        "used_by": listed.used_by,
        "created_by_hubgate": managed is not None,
        "stage": managed.stage if managed else None,
        "message": (managed.message or None) if managed else None,
        "warnings": (managed.warnings or None) if managed else None,
        "register_as": managed.register_as if managed else None,
    }
    return _known(fields)


def _plan_json(plan: Plan) -> dict[str, Any]:
    wanted, price = plan.wanted, plan.price
    return _known(
        {
            "name": wanted.name,
            "namespace": wanted.namespace,
            "model": wanted.repository,
            "engine": plan.engine,
            "why": plan.why,
            "hardware": _hardware_json(wanted.hardware),
            "body": plan.body,
            "price": {**asdict(price), "per_day": price.per_day, "per_month": price.per_month},
            "needed_gb": plan.needed_gb,
            "fits": [_fit_json(fit) for fit in plan.fits],
            "recipes": msgspec.to_builtins(plan.recipes),
            "warnings": plan.warnings,
            "confirm": plan.confirm,
            "expires_at": plan.expires_at,
        }
    )


def _managed_json(managed: ManagedDeployment) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(managed)
    return _known(fields)


def _hardware_json(hardware: Hardware) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(hardware)
    return _known({**fields, "instance": hardware.instance, "replicas_left": hardware.replicas_left})


def _fit_json(fit: Fit) -> dict[str, Any]:
    return {
        **_hardware_json(fit.hardware),
        "fits": fit.misfit is None,
        "misfit": fit.misfit,
        "reason": fit.reason,
    }


def _done(done: Done) -> Response:
    act = done.act
    fields: dict[str, Any] = {
        "verb": act.verb,
        "namespace": act.namespace,
        "name": act.name,
        "dry_run": done.dry_run,
        "body": act.body or None,
        "dollars_per_hour": [act.before, act.after],
        "used_by": act.used_by,
        "deployment": None if done.listed is None else listed_json(done.listed),
    }
    return json_response(_known(fields))


def _where(request: Request) -> tuple[str | None, str | None]:
    return request.query_params.get("connection") or None, request.query_params.get("namespace") or None


def _named(request: Request) -> tuple[str | None, str | None, str]:
    names = request.path_params
    namespace = None if names["namespace"] == "-" else names["namespace"]
    return request.query_params.get("connection") or None, namespace, names["name"]


def confirmed_price(request: Request) -> float | None:
    return _number(request.query_params.get("confirm_price"), "confirm_price")


def _number(text: str | None, name: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise InvalidRequest(f"[{name}] must be a number of US dollars.")
    return value


def _flag(request: Request, name: str) -> bool:
    word = request.query_params.get(name, "")
    if word not in {"", "true", "false"}:
        raise InvalidRequest(f"[{name}] must be true or false.")
    return word == "true"


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: field for name, field in fields.items() if field is not None}
