"""Model search on the Hub inside the form: the query, the results, and the fields that a selection fills in.

It is optional: if the Hub cannot be reached, the page says why, and everything can be typed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import Response

from hubgate.core.prompts import Prefixes
from hubgate.domain.endpoint import Source
from hubgate.domain.errors import Cause, HubgateError
from hubgate.domain.hub import ModelCard, ModelSearch
from hubgate.domain.ports import Hub
from hubgate.domain.records import Connection
from hubgate.domain.secret import Secret
from hubgate.service.registry.prefixes import prefixes_of_card
from hubgate.web.console.models.form import KINDS, task_of
from hubgate.web.console.models.paste import TEXT_TO_TEXT, parse_pasted, suggested_name
from hubgate.web.console.page_context import PageContext

_MAX_RESULTS = 20
_MAX_TEXT_LENGTH = 200
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
"""Reasons why the Hub returned nothing, with the locale key `hub.why.<reason>`; the default is `unreached`."""
WHYS = frozenset({*_WHY.values(), "unreached"})


@dataclass(frozen=True, slots=True)
class Silence:
    """Why the Hub returned nothing."""

    why: str
    error: HubgateError

    @classmethod
    def of(cls, error: HubgateError) -> Silence:
        return cls(_WHY.get(error.cause, "unreached"), error)


@dataclass(frozen=True, slots=True)
class Choice:
    """A selected model: the fields that it fills in, and its card."""

    fields: Mapping[str, str]
    card: ModelCard | None
    prefixes: Prefixes | None = None
    """What a registration of the model would add before its texts."""
    silence: Silence | None = None


class Picker:
    """The search.

    Args:
        hub: the client of the Hub.
        connections: stored tokens, by name; requests use the one selected in the form.
    """

    def __init__(self, hub: Hub, connections: Mapping[str, Connection]) -> None:
        self._hub = hub
        self._connections = connections

    async def show(self, context: PageContext) -> Response:
        return await self._found(context, "models/hub_search.html")

    async def search(self, context: PageContext) -> Response:
        return await self._found(context, "models/hub_results.html")

    async def choose(self, form: Mapping[str, str]) -> Choice:
        """The fields that follow from the model in `pick`; fewer if the Hub does not return its card."""
        name = form.get("pick", "")[:_MAX_TEXT_LENGTH]
        named = {"model": name, "name": suggested_name(name), **parse_pasted(name)}
        try:
            token = self._token(form)
            card = await self._hub.model(name, token)
        except HubgateError as error:
            return Choice(named, None, silence=Silence.of(error))
        prefixes = await prefixes_of_card(self._hub, card, token)
        return Choice({**named, **_task_fields(card, form)}, card, prefixes)

    async def _found(self, context: PageContext, template: str) -> Response:
        query = context.request.query_params
        where, text = query.get("where", ""), query.get("hub_text", "").strip()[:_MAX_TEXT_LENGTH]
        # By default only hosted models have to be served; the choice on the page applies to its endpoint type.
        served = "served" in query if query.get("served_for") == where else where == Source.ROUTER
        wanted = ModelSearch(text=text, task=task_of(query), served=served or None, limit=_MAX_RESULTS)
        cards: Sequence[ModelCard] = ()
        silence = None
        try:
            cards = await self._hub.search(wanted, self._token(query))
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
            connection=query.get("connection", "")[:_MAX_TEXT_LENGTH],
            of=query.get("of", "")[:_MAX_TEXT_LENGTH],
        )

    def _token(self, form: Mapping[str, str]) -> Secret | None:
        """The token of the selected connection, if any."""
        connection = self._connections.get(form.get("connection", ""))
        return connection.hub_token if connection else None


def _task_fields(card: ModelCard, form: Mapping[str, str]) -> Mapping[str, str]:
    """The form's task if the model does it, otherwise the model's first task; nothing if its tasks are unknown."""
    if not card.tasks:
        return {}
    task = task_of(form)
    if task not in card.tasks:
        task = card.tasks[0]
    kind = next(kind for kind, tasks in KINDS.items() if task in tasks)
    word = TEXT_TO_TEXT if card.pipeline_tag == TEXT_TO_TEXT and task in KINDS["llm"] else task
    return {"kind": kind, f"task_{kind}": word}
