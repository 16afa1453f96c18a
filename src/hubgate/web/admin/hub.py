"""`/api/hub`: what Hugging Face offers to register. Optional: everything can also be typed in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hubgate.domain.endpoint import Task
from hubgate.domain.errors import InvalidRequest, NotFound
from hubgate.domain.hub import MAX_MODELS, ModelCard, ModelSearch
from hubgate.domain.ports import Hub
from hubgate.domain.secret import Secret
from hubgate.service.gateway import Gateway
from hubgate.service.registry.prefixes import prefixes_of_card
from hubgate.web.admin.openapi import ApiRoute, json_response

TOKEN_HEADER = "x-hf-token"  # noqa: S105 - a header's name
_DEFAULT_LIMIT = 20
_SERVED = {None: None, "": None, "true": True, "false": False}
TOKEN_PARAMETERS = {
    "endpoint": f"use the token of this endpoint; the header {TOKEN_HEADER} takes precedence",
    "connection": "use the token of this connection",
}


class HubApi:
    def __init__(self, hub: Hub, gateway: Gateway) -> None:
        self._hub = hub
        self._gateway = gateway

    async def search(self, request: Request) -> Response:
        params = request.query_params
        query = ModelSearch(
            text=params.get("search", "").strip(),
            task=_task(params.get("task")),
            served=_served(params.get("served")),
            limit=_limit(params.get("limit")),
        )
        cards = await self._hub.search(query, token_of(request, self._gateway))
        return json_response({"models": [_card_json(card) for card in cards]})

    async def model(self, request: Request) -> Response:
        token = token_of(request, self._gateway)
        card = await self._hub.model(request.path_params["model"], token)
        found = await prefixes_of_card(self._hub, card, token)
        prefixes = {"prefixes": found.texts, "prefix_source": found.source} if found else {}
        return json_response({**_card_json(card), **prefixes})

    async def whoami(self, request: Request) -> Response:
        return json_response(known_fields(await self._hub.whoami(require_token(request, self._gateway))))

    async def deployments(self, request: Request) -> Response:
        namespace = request.query_params.get("namespace", "").strip() or None
        found = await self._hub.deployments(namespace, require_token(request, self._gateway))
        return json_response({"endpoints": [known_fields(one) for one in found]})

    def routes(self) -> Sequence[ApiRoute]:
        return (
            ApiRoute(
                method="GET",
                path="/hub/models",
                handler=self.search,
                summary="Searches the Hub for models of hubgate's tasks, trending first.",
                query={
                    "task": "by hubgate's or Hugging Face's name",
                    "search": "part of the name",
                    "served": "true: only models that an Inference Provider serves; false: only others",
                    "limit": f"number of models, {_DEFAULT_LIMIT} by default, at most {MAX_MODELS}",
                    **TOKEN_PARAMETERS,
                },
            ),
            ApiRoute(
                method="GET",
                path="/hub/models/{model:path}",
                handler=self.model,
                summary="Returns one model: dimensions and max tokens if its files have them, its prefixes and its providers.",
                query=TOKEN_PARAMETERS,
            ),
            ApiRoute(
                method="GET",
                path="/hub/whoami",
                handler=self.whoami,
                summary="Returns a token's owner, organisations and permissions.",
                query=TOKEN_PARAMETERS,
            ),
            ApiRoute(
                method="GET",
                path="/hub/endpoints",
                handler=self.deployments,
                summary="Lists Inference Endpoints with URL, state, model and engine.",
                query={
                    "namespace": "a user or an organisation; by default all that the token can see",
                    **TOKEN_PARAMETERS,
                },
            ),
        )


def token_of(request: Request, gateway: Gateway) -> Secret | None:
    """The token that a request about Hugging Face names, never one from the environment."""
    given = request.headers.get(TOKEN_HEADER, "").strip()
    if given:
        return Secret(given)
    if endpoint := request.query_params.get("endpoint"):
        return _first(gateway.registry.token(endpoint))
    if connection := request.query_params.get("connection"):
        found = gateway.connections.by_name.get(connection)
        if found is None:
            raise NotFound(
                f"No connection is named [{connection[:200]}].",
                remedy="GET /api/connections lists them.",
            )
        return found.hub_token
    return None


def require_token(request: Request, gateway: Gateway) -> Secret:
    """As `token_of`. Raises: InvalidRequest: the request names none."""
    token = token_of(request, gateway)
    if token is None:
        raise InvalidRequest(
            "Hugging Face requires a token for this.",
            remedy=f"Send it in the header {TOKEN_HEADER}, or name an endpoint or a connection with one.",
        )
    return token


def _first(token: Secret | None) -> Secret | None:
    return next(iter(token.each()), None) if token else None


def _task(word: str | None) -> Task | None:
    if not word:
        return None
    try:
        return Task(word)
    except ValueError:
        raise InvalidRequest(
            f"[task] is not valid: {word[:200]}.", remedy=f"Use one of {', '.join(Task)}."
        ) from None


def _served(word: str | None) -> bool | None:
    if word not in _SERVED:
        raise InvalidRequest("[served] must be true or false.")
    return _SERVED[word]


def _limit(word: str | None) -> int:
    if not word:
        return _DEFAULT_LIMIT
    if not word.isascii() or not word.isdigit() or len(word) > 9:
        raise InvalidRequest("[limit] must be a whole number.")
    return int(word)


def _card_json(card: ModelCard) -> dict[str, Any]:
    return {"served": card.served, **known_fields(card)}


def known_fields(value: object) -> dict[str, Any]:
    """The fields of a value that are not `None`, for JSON."""
    fields: dict[str, Any] = msgspec.to_builtins(value)
    return {name: field for name, field in fields.items() if field is not None}
