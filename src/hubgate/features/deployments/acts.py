"""Verbs on Inference Endpoints as values: what each would do and cost, before it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hubgate.domain.errors import Cause, NotConfirmed
from hubgate.domain.hub import Deployment
from hubgate.features.deployments.fields import DeploymentEditForm, Scaling
from hubgate.features.deployments.fit import cost_at_most, cost_now
from hubgate.features.deployments.model import Hardware, ManagedDeployment

_MAY_COST_MORE = frozenset({"edit", "resume"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An Inference Endpoint with what it costs, and its record if hubgate created it."""

    deployment: Deployment
    hardware: Hardware | None
    managed: ManagedDeployment | None = None
    used_by: tuple[str, ...] = ()
    """Registered endpoints that call it."""

    @property
    def now(self) -> float | None:
        """US dollars an hour; `None` if unknown."""
        return cost_now(self.deployment, self.hardware)

    @property
    def at_most(self) -> float | None:
        """US dollars an hour if all replicas run; `None` if unknown."""
        return cost_at_most(self.deployment, self.hardware)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What a verb does, before it is done."""

    verb: str
    namespace: str
    name: str
    before: float | None
    """US dollars an hour at most; `None` if unknown."""
    after: float | None
    body: Mapping[str, Any] = field(default_factory=dict)
    used_by: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Done(NamedTuple):
    """A verb, and its result."""

    act: Act
    dry_run: bool = False
    listed: Listed | None = None
    """`None` after a dry run, or if it was deleted."""


def act_on(verb: str, listed: Listed, after: float | None, *, body: Mapping[str, Any] | None = None) -> Act:
    return Act(
        verb=verb,
        namespace=listed.deployment.namespace,
        name=listed.deployment.name,
        before=listed.at_most,
        after=after,
        body=body or {},
        used_by=listed.used_by,
    )


def require_confirmation(act: Act, confirmed: float | None) -> None:
    """What may cost more than before has to be confirmed with its price."""
    if act.verb not in _MAY_COST_MORE:
        return
    if act.after is not None and act.before is not None and act.after <= act.before:
        return
    price = "an unknown amount" if act.after is None else f"at most ${act.after:g}"
    if confirmed is None:
        raise NotConfirmed(
            f"The Inference Endpoint [{act.name}] would cost {price} an hour.",
            remedy="Confirm the price: [confirm_price], or --confirm-price.",
        )
    if act.after is not None and act.after > confirmed:
        raise NotConfirmed(
            f"The Inference Endpoint [{act.name}] would cost {price} an hour, and ${confirmed:g} was confirmed. "
            "Nothing was changed.",
            remedy="Confirm the new price.",
            cause=Cause.PRICE_CHANGED,
        )


def scaling_after(current: Deployment, edit: DeploymentEditForm) -> Scaling:
    now = (current.min_replicas or 0, current.max_replicas or 1)
    low, high = (
        new if new is not None else old
        for new, old in zip((edit.min_replicas, edit.max_replicas), now, strict=True)
    )
    return Scaling(
        min_replicas=low,
        max_replicas=high,
        zero_after=current.zero_after if edit.zero_after is None else edit.zero_after,
    )


def audited(body: Mapping[str, Any], path: str = "") -> dict[str, list[Any]]:
    """The fields of a change for the audit log; values of environment variables are left out."""
    found: dict[str, list[Any]] = {}
    for key, value in body.items():
        name = f"{path}{key}"
        if key in {"env", "secrets"}:
            found[name] = [None, sorted(value)]
        elif isinstance(value, dict):
            found |= audited(value, f"{name}.")
        else:
            found[name] = [None, value]
    return found
