"""Chooses the Inference Provider of an endpoint from those on the model's card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hubgate.domain.endpoint import Endpoint, Task
from hubgate.domain.errors import Cause, InvalidEndpoint
from hubgate.domain.hub import ModelCard, ProviderMapping
from hubgate.upstreams.engines.providers import AUTO, HUB_TASKS, POLICIES, ROUTES_BY_TASK

_LIVE = frozenset({"live", "staging"})
"""Statuses of a provider that serves the model; the other one is `error`."""


class ProviderChoice(NamedTuple):
    provider: ProviderMapping | None
    """`None` if the router chooses it for each request."""
    chats: bool
    completes: bool


def choose_provider(endpoint: Endpoint, card: ModelCard) -> ProviderChoice:
    """Choose the provider, and find out whether it serves chats and text completions.

    For chats the router chooses the provider, unless the endpoint names one. For other tasks it is the first one on the
    card, which lists providers in the order that the token's owner prefers.

    Raises:
        InvalidEndpoint: no provider serves the model, none serves it for this task, or the endpoint's own does not.
    """
    live = [one for one in card.served_by if one.status in _LIVE]
    if not live:
        raise _not_served(card)
    chosen = endpoint.provider if endpoint.provider not in {None, AUTO, *POLICIES} else None
    wanted = [one for one in live if chosen in {None, one.provider}]
    if not wanted:
        raise InvalidEndpoint(
            f"The provider [{chosen}] does not serve [{card.name}]. These do: {_names(live)}.",
            remedy="Set [provider] to one of them, or remove it.",
            cause=Cause.NOT_SERVED,
        )
    suitable = _for_task(endpoint.task, wanted)
    chats = bool(_for_task(Task.CHAT_COMPLETION, wanted))
    if endpoint.task is Task.CHAT_COMPLETION and chats:
        completes = bool(_for_task(Task.COMPLETION, wanted))
        return ProviderChoice(suitable[0] if chosen else None, chats, completes)
    if suitable:
        return ProviderChoice(suitable[0], chats, endpoint.task is Task.COMPLETION)
    if endpoint.task is Task.COMPLETION and chats:
        return ProviderChoice(None, chats, False)
    raise _wrong_task(endpoint.task, card, wanted)


def _for_task(task: Task, providers: Sequence[ProviderMapping]) -> list[ProviderMapping]:
    """The providers that serve the task, and whose API for it hubgate knows."""
    return [
        one
        for one in providers
        if one.task in HUB_TASKS[task]
        and (task not in ROUTES_BY_TASK or one.provider in ROUTES_BY_TASK[task])
    ]


def _not_served(card: ModelCard) -> InvalidEndpoint:
    down = f" ({_names(card.served_by)} did, but is down)" if card.served_by else ""
    return InvalidEndpoint(
        f"No Inference Provider serves [{card.name}] now{down}.",
        remedy="Choose a model that is served (hubgate search shows them), or run this one on an Inference Endpoint "
        "or on this machine.",
        cause=Cause.NOT_SERVED,
    )


def _wrong_task(task: Task, card: ModelCard, providers: Sequence[ProviderMapping]) -> InvalidEndpoint:
    served = ", ".join(dict.fromkeys(f"{one.task} ({one.provider})" for one in providers))
    if any(one.task in HUB_TASKS[task] for one in providers):
        return InvalidEndpoint(
            f"[{card.name}] is served for {task.pipeline_tag} by {_names(providers)}, whose API for it "
            "hubgate does not support.",
            remedy=f"hubgate supports {', '.join(sorted(ROUTES_BY_TASK[task]))}. Choose a model that one of them serves.",
            cause=Cause.NOT_SERVED,
        )
    return InvalidEndpoint(
        f"[{card.name}] is served for {served}, not for {task.pipeline_tag}.",
        remedy="Choose one of its tasks, or another model.",
        cause=Cause.WRONG_TASK,
    )


def _names(providers: Sequence[ProviderMapping]) -> str:
    return ", ".join(dict.fromkeys(one.provider for one in providers))
