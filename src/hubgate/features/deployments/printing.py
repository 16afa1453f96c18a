"""Prints plans, Inference Endpoints and what verbs do to them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hubgate.terminal.printing import plain, print_fields, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAX_MISFITS = 5


def print_hardware(found: Sequence[Mapping[str, Any]]) -> None:
    print_table(
        ("instance", "where", "hardware", "memory", "dollars/hour", "status", "replicas left"),
        [(*_hardware(one), one["status"], one.get("replicas_left")) for one in found],
    )


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print a plan: the request, its price, and what else fits."""
    price, hardware = plan["price"], plan["hardware"]
    needed = plan.get("needed_gb")
    print_fields(
        {
            "name": plan["name"],
            "namespace": plan["namespace"],
            "model": plan["model"],
            "engine": f"{plan['engine']}, because {plan['why']}",
            "hardware": f"{hardware['instance']} at {hardware['vendor']} {hardware['region']}",
            "memory needed": "unknown" if needed is None else f"about {needed:.1f} GB",
            "one replica": f"${price['replica']:g} an hour",
            "at least": f"${price['at_least']:g} an hour",
            "at most": f"${price['at_most']:g} an hour, ${price['per_day']:.2f} a day, "
            f"${price['per_month']:.2f} in 730 hours",
            "replicas left by the quota": plain(hardware.get("replicas_left")),
        }
    )
    for warning in plan["warnings"]:
        print_fields({"warning": warning})
    fits = plan["fits"]
    print("\nThe request:\n" + json.dumps(plan["body"], indent=2, ensure_ascii=False) + "\n")
    misfits = [fit for fit in fits if not fit["fits"]]
    shown = [fit for fit in fits if fit["fits"]] + misfits[:_MAX_MISFITS]
    print_table(
        ("instance", "where", "hardware", "memory", "dollars/hour", "fits"),
        [(*_hardware(fit), "yes" if fit["fits"] else f"no: {fit['reason']}") for fit in shown],
    )
    if more := len(misfits[_MAX_MISFITS:]):
        print(f"{more} more do not fit. `hubgate deploy hardware` lists all.")


def print_deployments(reply: Mapping[str, Any]) -> None:
    print_table(
        ("name", "namespace", "state", "stage", "model", "instance", "replicas", "now", "at most", "used by"),
        [
            (
                one["name"],
                one["namespace"],
                one["state"],
                one.get("stage"),
                one.get("repository"),
                one.get("instance") or one.get("hardware"),
                _replicas(one),
                _dollars(one.get("dollars_now")),
                _dollars(one.get("dollars_at_most")),
                ", ".join(one["used_by"]),
            )
            for one in reply["deployments"]
        ],
    )
    print(f"Now ${reply['dollars_now']:g} an hour, at most ${reply['dollars_at_most']:g}.")


def print_deployment(shown: Mapping[str, Any]) -> None:
    print_fields({name: plain(value) for name, value in shown.items()})


def print_act(done: Mapping[str, Any]) -> None:
    """Print what a verb did, or would do, and what that changes of the costs."""
    before, after = done["dollars_per_hour"]
    verb = f"Would {done['verb']}" if done["dry_run"] else f"Done: {done['verb']}"
    print(
        f"{verb} {done['namespace']}/{done['name']}: at most {_dollars(before)} an hour before, {_dollars(after)} after."
    )
    if done.get("body") and done["dry_run"]:
        print(json.dumps(done["body"], indent=2, ensure_ascii=False))
    if done["used_by"] and done["verb"] in {"pause", "delete"}:
        print(f"Used by {', '.join(done['used_by'])}.")


def _hardware(one: Mapping[str, Any]) -> tuple[object, ...]:
    memory = one.get("gpu_memory_gb") or one.get("memory_gb")
    return (
        one["instance"],
        f"{one['vendor']} {one['region']}",
        one.get("architecture"),
        f"{memory:g} GB" if memory else None,
        f"{one['price_per_hour']:g}",
    )


def _replicas(one: Mapping[str, Any]) -> str | None:
    low, high = one.get("min_replicas"), one.get("max_replicas")
    return None if high is None else f"{one.get('ready_replicas', 0)} ({low}–{high})"


def _dollars(amount: float | None) -> str:
    return "unknown" if amount is None else f"${amount:g}"
