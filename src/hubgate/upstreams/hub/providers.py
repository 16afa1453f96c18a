"""Which of the providers of a model is to serve an endpoint: from what the Hub says of the model."""

from __future__ import annotations

from collections.abc import Sequence

from hubgate.domain.endpoint import Endpoint, Task
from hubgate.domain.errors import Cause, InvalidEndpoint
from hubgate.domain.hub import ModelCard, ProviderMapping
from hubgate.upstreams.engines.providers import AUTO, MAPPED_TASKS, POLICIES, TABLES

_LIVE = frozenset({"live", "staging"})


def serving(endpoint: Endpoint, card: ModelCard) -> tuple[ProviderMapping | None, bool, bool]:
    """Who serves it, whether it chats, and whether it completes.

    Of conversations the router picks the provider itself, unless one is named. The first that the owner of the token
    prefers is taken of all other tasks.

    Raises:
        InvalidEndpoint: nobody serves the model, not the provider that is named, or not for this task.
    """
    live = [one for one in card.served_by if one.status in _LIVE]
    if not live:
        raise _not_served(card)
    named = endpoint.provider if endpoint.provider not in {None, AUTO, *POLICIES} else None
    wanted = [one for one in live if named in {None, one.provider}]
    if not wanted:
        raise InvalidEndpoint(
            f"The provider [{named}] does not serve [{card.name}]; those that do: {_names(live)}.",
            remedy="Name one of them in [provider], or leave it out.",
            cause=Cause.NOT_SERVED,
        )
    fitting = _of(endpoint.task, wanted)
    chats = bool(_of(Task.CHAT_COMPLETION, wanted))
    if endpoint.task is Task.CHAT_COMPLETION and chats:
        return fitting[0] if named else None, True, bool(_of(Task.COMPLETION, wanted))
    if fitting:
        return fitting[0], chats, endpoint.task is Task.COMPLETION
    if endpoint.task is Task.COMPLETION and chats:
        return None, True, False
    raise _wrong_task(endpoint.task, card, wanted)


def _of(task: Task, servings: Sequence[ProviderMapping]) -> list[ProviderMapping]:
    """Those that do the task and to which the gate can speak of it."""
    return [
        one
        for one in servings
        if one.task in MAPPED_TASKS[task] and (task not in TABLES or one.provider in TABLES[task])
    ]


def _not_served(card: ModelCard) -> InvalidEndpoint:
    down = f" ({_names(card.served_by)} did, and is down)" if card.served_by else ""
    return InvalidEndpoint(
        f"No Inference Provider serves [{card.name}] now{down}.",
        remedy="Choose a model that is served (hubgate search shows them), or run this one on an Inference Endpoint "
        "or on this machine.",
        cause=Cause.NOT_SERVED,
    )


def _wrong_task(task: Task, card: ModelCard, servings: Sequence[ProviderMapping]) -> InvalidEndpoint:
    done = ", ".join(dict.fromkeys(f"{one.task} ({one.provider})" for one in servings))
    if any(one.task in MAPPED_TASKS[task] for one in servings):
        return InvalidEndpoint(
            f"[{card.name}] is served for {task.pipeline_tag} by {_names(servings)}, to whom the gate cannot speak "
            "of this task.",
            remedy=f"Those it can: {', '.join(sorted(TABLES[task]))}.",
            cause=Cause.NOT_SERVED,
        )
    return InvalidEndpoint(
        f"[{card.name}] is served for {done}, not for {task.pipeline_tag}.",
        remedy="Choose the task that it does, or a model that does this one.",
        cause=Cause.WRONG_TASK,
    )


def _names(servings: Sequence[ProviderMapping]) -> str:
    return ", ".join(dict.fromkeys(one.provider for one in servings))
