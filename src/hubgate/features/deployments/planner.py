"""Plans of Inference Endpoints. A plan only reads, so it costs nothing; it is confirmed before anything is created."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from hubgate.domain.endpoint import GENERATION_TASKS, Engine, Task, check_name
from hubgate.domain.errors import Cause, HubgateError, InvalidRequest, NotConfirmed
from hubgate.domain.hub import ModelCard
from hubgate.domain.ports import Hub
from hubgate.domain.secret import Secret
from hubgate.features.deployments.accounts import Account, Accounts
from hubgate.features.deployments.fields import DeploymentForm
from hubgate.features.deployments.fit import (
    VARIANTS,
    EngineChoice,
    check_fit,
    choose_engine,
    default_image,
    needed_memory,
    own_image,
)
from hubgate.features.deployments.hub import InferenceEndpoints
from hubgate.features.deployments.model import (
    TAG,
    Fit,
    Hardware,
    Image,
    Misfit,
    Offer,
    Plan,
    Recipe,
    WantedDeployment,
    check_deployment_name,
    price_of,
    tag_of,
)

GOOD_FOR_SECONDS = 600.0
"""How long a plan can be confirmed."""
_TASKS: Mapping[Task, str] = {
    Task.TEXT_EMBEDDING: "sentence-embeddings",
    Task.RERANK: "sentence-ranking",
    Task.COMPLETION: "text-generation",
    Task.CHAT_COMPLETION: "text-generation",
}
"""Hugging Face's names of tasks for Inference Endpoints."""

_log = logging.getLogger(__name__)


class Planned(NamedTuple):
    """A plan, and what is needed to carry it out."""

    plan: Plan
    account: Account
    task: Task
    register_as: str


class _Considered(NamedTuple):
    """A request with what Hugging Face says about it."""

    account: Account
    card: ModelCard
    task: Task
    offer: Offer


class _Stamp(msgspec.Struct, array_like=True):
    """What a confirmation holds, signed together with the request."""

    id: str
    expires_at: float
    at_most: float
    replica: float
    hardware: str


class Planner:
    """Makes plans, and recognises them when they are confirmed. Any gateway with the same secret key can.

    Args:
        api: of Inference Endpoints.
        hub: for the model's card.
        accounts: for tokens.
        secret: signs confirmations.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        api: InferenceEndpoints,
        hub: Hub,
        accounts: Accounts,
        secret: bytes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._hub = hub
        self._accounts = accounts
        self._secret = secret
        self._clock = clock

    async def offer(self, request: DeploymentForm) -> Offer:
        """What the model could run on.

        Raises:
            HubgateError: as `plan`, unless it fits on nothing.
        """
        return (await self._consider(request)).offer

    async def plan(self, request: DeploymentForm) -> Plan:
        """What creating this Inference Endpoint would do and cost.

        Raises:
            InvalidRequest: it cannot be created like this.
            NotPermitted: the token may not manage Inference Endpoints.
            UpstreamError: Hugging Face cannot be asked.
        """
        stamp = _Stamp(secrets.token_hex(8), self._clock() + GOOD_FOR_SECONDS, 0.0, 0.0, "")
        planned = await self._plan(request, stamp.id)
        stamp.at_most, stamp.replica = planned.plan.price.at_most, planned.plan.price.replica
        stamp.hardware = planned.plan.wanted.hardware.id
        return replace(planned.plan, confirm=self._sign(stamp, planned), expires_at=stamp.expires_at)

    async def confirmed(self, request: DeploymentForm, confirm: str) -> Planned:
        """The plan of a request again, if it is the one that was confirmed.

        Raises:
            NotConfirmed: it was not confirmed, it was changed, it is too old, or the price has changed.
            HubgateError: as `plan`.
        """
        stamp = self._read_stamp(confirm)
        if stamp is None:
            raise NotConfirmed(
                "A deployment needs the confirmation of its plan.",
                remedy="Make a plan first (POST /api/deployments/plan), and send its [confirm].",
            )
        if stamp.expires_at < self._clock():
            raise NotConfirmed("This plan is more than ten minutes old.", remedy="Make a new plan.")
        planned = await self._plan(request, stamp.id, stamp.hardware)
        if not hmac.compare_digest(self._sign(stamp, planned).encode(), confirm.encode()):
            raise NotConfirmed(
                "This is not what was planned: the plan and the request differ.", remedy="Make a new plan."
            )
        price = planned.plan.price
        if (price.at_most, price.replica) != (stamp.at_most, stamp.replica):
            raise NotConfirmed(
                f"The price has changed: it was at most ${stamp.at_most:g} an hour, and is ${price.at_most:g} now. "
                "Nothing was created.",
                remedy="Make a new plan, and confirm it.",
                cause=Cause.PRICE_CHANGED,
            )
        return planned

    async def _consider(self, request: DeploymentForm) -> _Considered:
        account = await self._accounts.find(request.connection, request.namespace, manages=True)
        card = await self._hub.model(request.model, account.token)
        name = request.name or _default_name(card.name)
        check_deployment_name(name)
        check_name(request.register_as or name)
        warnings: list[str] = []
        recipes = await self._recipes(card.name, account, warnings)
        task = _task(request, card)
        choice = _engine(request, card, task, recipes)
        offered = _wanted(await self._api.hardware(account.namespace, account.token), request)
        fits = [
            check_fit(
                card,
                choice.engine,
                one,
                replicas=request.scaling.max_replicas,
                own_image=request.image is not None,
            )
            for one in offered
        ]
        offer = Offer(
            namespace=account.namespace,
            name=name,
            engine=choice.engine,
            why=choice.why,
            fits=tuple(fits),
            recipes=tuple(recipes),
            warnings=tuple(warnings),
        )
        return _Considered(account, card, task, offer)

    async def _plan(self, request: DeploymentForm, plan_id: str, pinned: str | None = None) -> Planned:
        account, card, task, offer = await self._consider(request)
        engine, warnings = offer.engine, list(offer.warnings)
        hardware = _choose(offer.fits, request, pinned, warnings)
        recipe = next((one for one in offer.recipes if one.engine is engine), None)
        wanted = WantedDeployment(
            namespace=offer.namespace,
            name=offer.name,
            repository=card.name,
            hardware=hardware,
            image=_image(request, engine, hardware, task, recipe),
            scaling=request.scaling,
            access=request.type,
            framework="custom" if request.image else "pytorch",
            revision=request.revision or (recipe.revision if recipe else None),
            task=_TASKS.get(task),
            arguments=request.arguments,
            environment=request.environment,
            secrets={name: Secret(text) for name, text in request.secrets.items()},
            tags=(TAG, tag_of(plan_id)),
        )
        needed = needed_memory(card, engine, hardware.accelerator)
        if needed is None:
            warnings.append("The model's size is unknown, so whether it fits in memory is, too.")
        if card.gated:
            warnings.append("The model is gated: the namespace needs access to it, or it fails to start.")
        plan = Plan(
            id=plan_id,
            wanted=wanted,
            body=self._api.body(wanted),
            price=price_of(hardware, request.scaling),
            engine=engine,
            why=offer.why,
            needed_gb=needed,
            fits=offer.fits,
            recipes=offer.recipes,
            warnings=tuple(warnings),
        )
        return Planned(plan, account, task, request.register_as or offer.name)

    async def _recipes(self, repository: str, account: Account, warnings: list[str]) -> Sequence[Recipe]:
        try:
            return await self._api.recipes(repository, account.token)
        except HubgateError as error:
            warnings.append(f"The Inference Catalog could not be asked for a tested recipe. {error.message}")
            return ()

    def _sign(self, stamp: _Stamp, planned: Planned) -> str:
        """The confirmation of a plan: what it holds, and a digest of that with the request and its price."""
        held = msgspec.json.encode(stamp)
        request = msgspec.json.encode(
            (planned.account.connection, planned.register_as, planned.task, planned.plan.body), order="sorted"
        )
        return ".".join(
            (
                base64.urlsafe_b64encode(held).decode(),
                self._digest(held),
                self._digest(held + b"\n" + request),
            )
        )

    def _digest(self, text: bytes) -> str:
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()

    def _read_stamp(self, confirm: str) -> _Stamp | None:
        """What a confirmation holds, if hubgate wrote it."""
        encoded, _, digests = confirm.partition(".")
        try:
            held = base64.urlsafe_b64decode(encoded)
        except (binascii.Error, ValueError):
            return None
        if not hmac.compare_digest(self._digest(held).encode(), digests.partition(".")[0].encode()):
            return None
        return msgspec.json.decode(held, type=_Stamp)


def _default_name(repository: str) -> str:
    """A name like the model's, as far as Hugging Face allows it."""
    name = repository.rpartition("/")[2].casefold()
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
    return plain[:32].strip("-")


def _task(request: DeploymentForm, card: ModelCard) -> Task:
    """What it will be registered for. A model that both completes and chats is registered for chats."""
    if request.task is not None:
        return request.task
    if not card.tasks:
        raise InvalidRequest(
            f"The task of [{card.name}] is unknown.", remedy=f"Name it as [task]: {', '.join(Task)}."
        )
    return next((task for task in reversed(card.tasks) if task in GENERATION_TASKS), card.tasks[0])


def _engine(request: DeploymentForm, card: ModelCard, task: Task, recipes: Sequence[Recipe]) -> EngineChoice:
    if request.engine is None:
        return choose_engine(card, task, [one for one in recipes if one.engine in VARIANTS])
    if request.engine not in VARIANTS:
        raise InvalidRequest(
            f"hubgate cannot deploy the engine {request.engine}.", remedy=f"Use one of {', '.join(VARIANTS)}."
        )
    return EngineChoice(request.engine, "it was requested")


def _wanted(hardware: Sequence[Hardware], request: DeploymentForm) -> list[Hardware]:
    found = [
        one
        for one in hardware
        if request.vendor in (None, one.vendor)
        and request.region in (None, one.region)
        and request.instance in (None, one.instance)
    ]
    if not found:
        asked = (request.instance, request.vendor, request.region)
        raise InvalidRequest(
            f"Hugging Face offers no hardware [{' '.join(filter(None, asked))}].",
            remedy="`hubgate deploy hardware` and GET /api/deployments/hardware list what it offers.",
        )
    return found


def _choose(
    fits: Sequence[Fit], request: DeploymentForm, pinned: str | None, warnings: list[str]
) -> Hardware:
    """The hardware of a confirmed plan, or else the cheapest that fits. Memory is only an estimate: named hardware wins."""
    allowed = [fit for fit in fits if pinned in (None, fit.hardware.id)]
    chosen = next((fit for fit in allowed if fit.misfit is None), None)
    if chosen is None and request.instance is not None:
        chosen = next((fit for fit in allowed if fit.misfit is Misfit.MEMORY), None)
        if chosen is not None:
            warnings.append(f"The model may not fit on {chosen.hardware.instance}: {chosen.reason}.")
    if chosen is not None:
        return chosen.hardware
    reasons = "; ".join(dict.fromkeys(f"{fit.hardware.instance}: {fit.reason}" for fit in allowed[:5]))
    raise InvalidRequest(
        f"The model fits on none of this hardware. {reasons}.".replace("..", "."),
        remedy="Name other hardware, another engine, fewer replicas, or an image of your own.",
    )


def _image(
    request: DeploymentForm, engine: Engine, hardware: Hardware, task: Task, recipe: Recipe | None
) -> Image:
    if request.image is not None:
        image = own_image(request.engine, request.image, request.port)
        if request.registry_username is not None:
            image = replace(image, variant="custom")
        password = None if request.registry_password is None else Secret(request.registry_password)
        return replace(image, username=request.registry_username, password=password)
    image = default_image(engine, hardware) or Image(variant=VARIANTS[engine])
    if engine is Engine.TEI and task is Task.SPARSE_EMBEDDING:
        return replace(image, options={"pooling": "splade"})
    if engine is Engine.LLAMACPP and recipe is not None and recipe.gguf_file:
        return replace(image, options={"modelPath": recipe.gguf_file})
    return image
