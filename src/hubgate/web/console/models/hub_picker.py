"""Finding a model on the Hub from the form: what is looked for, what is found, and the fields that a choice fills in.

Nothing needs it. Where the Hub cannot be asked, a line says why, and all can be typed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import Response

from hubgate.domain.endpoint import Source
from hubgate.domain.errors import Cause, HubgateError
from hubgate.domain.hub import ModelCard, ModelSearch
from hubgate.domain.ports import Hub
from hubgate.domain.records import Connection
from hubgate.domain.secret import Secret
from hubgate.web.console.models.form import KINDS, task_of
from hubgate.web.console.models.paste import TEXT_TO_TEXT, suggested_name, understood
from hubgate.web.console.page_context import PageContext

_MOST_FOUND = 20
_LONGEST = 200
_WHY = {
    Cause.OVERLOADED: "busy",
    Cause.TOKEN_MISSING: "no_token",
    Cause.WRONG_TOKEN: "token",
    Cause.TOKEN_LACKS_SCOPE: "token",
    Cause.ADDRESS_REFUSED: "offline",
    Cause.UPSTREAM_FAILED: "failed",
    Cause.GATED_MODEL: "hidden",
    Cause.MODEL_NOT_FOUND: "hidden",
    Cause.INVALID_REQUEST: "hidden",
}
"""Why the Hub said nothing, by the words `hub.why.<why>`; of whatever is not here, it was not reached."""
WHYS = frozenset({*_WHY.values(), "unreached"})


@dataclass(frozen=True, slots=True)
class Silence:
    """The Hub said nothing."""

    why: str
    error: HubgateError

    @classmethod
    def of(cls, error: HubgateError) -> Silence:
        """Why, by the error that told it."""
        return cls(_WHY.get(error.cause, "unreached"), error)


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that was chosen: what it fills in, and what is known of it."""

    fields: Mapping[str, str]
    card: ModelCard | None
    silence: Silence | None = None


class Picker:
    """The search.

    Args:
        hub: answers.
        connections: stored tokens, by name; the one that the form chooses asks.
    """

    def __init__(self, hub: Hub, connections: Mapping[str, Connection]) -> None:
        self._hub = hub
        self._connections = connections

    async def show(self, context: PageContext) -> Response:
        """The field to search by, and what is talked about for the form's task."""
        return await self._found(context, "models/hub_search.html")

    async def search(self, context: PageContext) -> Response:
        """What is found."""
        return await self._found(context, "models/hub_results.html")

    async def choose(self, form: Mapping[str, str]) -> Choice:
        """What follows from the model that `pick` names; less, where the Hub does not tell more of it."""
        name = form.get("pick", "")[:_LONGEST]
        named = {"model": name, "name": suggested_name(name), **understood(name)}
        try:
            card = await self._hub.model(name, self._token(form))
        except HubgateError as error:
            return Choice(named, None, Silence.of(error))
        return Choice({**named, **_task_fields(card, form)}, card)

    async def _found(self, context: PageContext, template: str) -> Response:
        asked = context.request.query_params
        where, text = asked.get("where", ""), asked.get("hub_text", "").strip()[:_LONGEST]
        # Whether it must be served follows the endpoint type, until the reader says otherwise for this type.
        served = "served" in asked if asked.get("served_for") == where else where == Source.ROUTER
        wanted = ModelSearch(text=text, task=task_of(asked), served=served or None, limit=_MOST_FOUND)
        cards: Sequence[ModelCard] = ()
        silence = None
        try:
            cards = await self._hub.search(wanted, self._token(asked))
        except HubgateError as error:
            silence = Silence.of(error)
        return context.render(
            template,
            cards=cards,
            silence=silence,
            text=text,
            task=wanted.task,
            served=served,
            where=where,
            of=asked.get("of", "")[:_LONGEST],
        )

    def _token(self, form: Mapping[str, str]) -> Secret | None:
        """The token of the chosen connection, if one is chosen."""
        connection = self._connections.get(form.get("connection", ""))
        return connection.hub_token if connection else None


def _task_fields(card: ModelCard, form: Mapping[str, str]) -> Mapping[str, str]:
    """The form's own task where the model does it, else the first that it does; nothing if that is not known."""
    if not card.tasks:
        return {}
    task = task_of(form)
    if task not in card.tasks:
        task = card.tasks[0]
    kind = next(kind for kind, tasks in KINDS.items() if task in tasks)
    word = TEXT_TO_TEXT if card.pipeline_tag == TEXT_TO_TEXT and task in KINDS["llm"] else task
    return {"kind": kind, f"task_{kind}": word}
