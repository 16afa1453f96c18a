"""The gate's own API: what Hugging Face has to register. Nothing else of the gate needs it; all can be typed instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubgate.domain.endpoint import Task
from hubgate.domain.errors import InvalidRequest, NotFound
from hubgate.domain.hub import MAX_MODELS, Deployment, ModelCard, ModelSearch
from hubgate.domain.ports import Hub
from hubgate.domain.records import Connection
from hubgate.domain.secret import Secret
from hubgate.service.gateway import Gateway
from hubgate.web.admin.openapi import ApiRoute, json_response

TOKEN_HEADER = "x-hf-token"  # noqa: S105 - a header's name
_USUAL_LIMIT = 20
_SERVED = {None: None, "": None, "true": True, "false": False}
_WHOSE = {
    "endpoint": f"the endpoint whose token asks; else {TOKEN_HEADER} of the request, if there is one",
    "connection": "the connection whose token asks",
}
_NONE: Mapping[str, Connection] = MappingProxyType({})


class HubApi:
    """Models of the Hub, the owner of a token, Inference Endpoints.

    Args:
        hub: answers.
        gateway: has the endpoints' tokens.
        connections: stored tokens, by name.
    """

    def __init__(self, hub: Hub, gateway: Gateway, connections: Mapping[str, Connection] = _NONE) -> None:
        self._hub = hub
        self._gateway = gateway
        self._connections = connections

    async def search(self, request: Request) -> Response:
        """Models that do one of the gate's tasks, trending first."""
        asked = request.query_params
        wanted = ModelSearch(
            text=asked.get("search", "").strip(),
            task=_task(asked.get("task")),
            served=_served(asked.get("served")),
            limit=_limit(asked.get("limit")),
        )
        cards = await self._hub.search(wanted, self._token(request))
        return json_response({"models": [_card_json(card) for card in cards]})

    async def model(self, request: Request) -> Response:
        """One model, with what its files tell."""
        return json_response(
            _card_json(await self._hub.model(request.path_params["model"], self._token(request)))
        )

    async def whoami(self, request: Request) -> Response:
        """Whose a token is, and what it may do."""
        return json_response(_known(await self._hub.whoami(self._needed_token(request))))

    async def deployments(self, request: Request) -> Response:
        """Inference Endpoints, to choose from."""
        namespace = request.query_params.get("namespace", "").strip() or None
        found = await self._hub.deployments(namespace, self._needed_token(request))
        return json_response({"endpoints": [_known(one) for one in found]})

    async def resume(self, request: Request) -> Response:
        """Wake a paused Inference Endpoint."""
        names = request.path_params
        token = self._needed_token(request)
        resumed: Deployment = await self._hub.resume(names["namespace"], names["name"], token)
        return json_response(_known(resumed))

    def routes(self) -> Sequence[ApiRoute]:
        """The rows of these verbs."""
        return (
            ApiRoute(
                method="GET",
                path="/hub/models",
                answer=self.search,
                summary="Models of the Hub that do one of the gate's tasks, trending first.",
                query={
                    "task": "in the gate's words or Hugging Face's",
                    "search": "a part of the name",
                    "served": "true: only models that an Inference Provider serves now; false: only others",
                    "limit": f"how many, {_USUAL_LIMIT} unless told, at most {MAX_MODELS}",
                    **_WHOSE,
                },
            ),
            ApiRoute(
                method="GET",
                path="/hub/models/{model:path}",
                answer=self.model,
                summary="One model: dimensions and length where its files tell them, and who serves it.",
                query=_WHOSE,
            ),
            ApiRoute(
                method="GET",
                path="/hub/whoami",
                answer=self.whoami,
                summary="Whose a token is, its organisations, and what it may do.",
                query=_WHOSE,
            ),
            ApiRoute(
                method="GET",
                path="/hub/endpoints",
                answer=self.deployments,
                summary="Inference Endpoints with their URL, state, model and engine.",
                query={
                    "namespace": "a user or an organisation; left out, all that the token may see",
                    **_WHOSE,
                },
            ),
            ApiRoute(
                method="POST",
                path="/hub/endpoints/{namespace}/{name}/resume",
                answer=self.resume,
                summary="Wakes a paused Inference Endpoint.",
                query=_WHOSE,
            ),
        )

    def _token(self, request: Request) -> Secret | None:
        """The token that the request names, never one of the environment."""
        given = request.headers.get(TOKEN_HEADER, "").strip()
        if given:
            return Secret(given)
        if endpoint := request.query_params.get("endpoint"):
            return _first(self._gateway.registry.token(endpoint))
        if connection := request.query_params.get("connection"):
            if connection not in self._connections:
                raise NotFound(
                    f"No connection is named [{connection[:200]}].",
                    remedy="GET /api/connections lists them.",
                )
            return self._connections[connection].hub_token
        return None

    def _needed_token(self, request: Request) -> Secret:
        token = self._token(request)
        if token is None:
            raise InvalidRequest(
                "No token is given, and without one Hugging Face does not answer this.",
                remedy=f"Send it in the header {TOKEN_HEADER}, or name an endpoint or a connection that has one.",
            )
        return token


def _first(token: Secret | None) -> Secret | None:
    """An endpoint may have several."""
    return next(iter(token.each()), None) if token else None


def _task(word: str | None) -> Task | None:
    if not word:
        return None
    try:
        return Task(word)
    except ValueError:
        raise InvalidRequest(
            f"[{word[:200]}] is no task that the gate serves.", remedy=f"One of {', '.join(Task)}."
        ) from None


def _served(word: str | None) -> bool | None:
    if word not in _SERVED:
        raise InvalidRequest("[served] is true or false.")
    return _SERVED[word]


def _limit(word: str | None) -> int:
    if not word:
        return _USUAL_LIMIT
    if not word.isascii() or not word.isdigit() or len(word) > 9:
        raise InvalidRequest("[limit] is a whole number.")
    return int(word)


def _card_json(card: ModelCard) -> dict[str, Any]:
    return {"served": card.served, **_known(card)}


def _known(value: object) -> dict[str, Any]:
    """The fields of a value that are known."""
    fields: dict[str, Any] = msgspec.to_builtins(value)
    return {name: field for name, field in fields.items() if field is not None}
