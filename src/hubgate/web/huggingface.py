"""The Hugging Face face: text-embeddings-inference's (TEI's) API. Its contract and oddities stand in huggingface.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
from starlette.responses import Response

from hubgate.core.vectors import in_encoding
from hubgate.domain.calls import Embed, Encoding, Tokenize, Tokens
from hubgate.domain.errors import InvalidRequest
from hubgate.web.asgi import decode, read_body, respond
from hubgate.web.embedding import (
    Inputs,
    addressed,
    embed,
    headers_of,
    input_type_of,
    texts_of,
)
from hubgate.web.openai import EMBEDDINGS, EmbeddingsForm, answer_embeddings
from hubgate.web.tei_info import info_of
from hubgate.web.ticket import ticket_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from hubgate.service.gateway import Gateway
    from hubgate.web.asgi import Receive, Scope, Send


class _Options(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    normalize: bool | None = None
    truncate: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None
    input_type: str | None = None
    """hubgate's own."""


class _EmbedForm(_Options, forbid_unknown_fields=True, kw_only=True):
    """TEI's body, or OpenAI's, which is told by its `input`."""

    inputs: Inputs | dict[str, Any] | None = None
    parameters: _Options | None = None
    """Where clients of 2023 put the options. Those at the root win."""
    options: Any = None
    """`wait_for_model` and `use_cache`, of a service that is no more: not read."""
    input: Inputs | None = None
    model: Any = None
    """`dummy`, `tgi`, a URL: the path has named the endpoint already."""
    user: Any = None

    def option(self, name: str) -> Any:
        """The option at the root, or else in the parameters."""
        value = getattr(self, name)
        return getattr(self.parameters, name) if value is None and self.parameters else value


class _TokenizeForm(msgspec.Struct, forbid_unknown_fields=True):
    inputs: Inputs
    add_special_tokens: bool = True


_EMBED = msgspec.json.Decoder(_EmbedForm)
_TOKENIZE = msgspec.json.Decoder(_TokenizeForm)


class HuggingFace:
    """`/hf/{endpoint}` as a base URL, and TEI's bare routes for the key's default endpoint.

    In every handler `name` is the endpoint's, or `None` on a bare route.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def embed(self, scope: Scope, receive: Receive, send: Send, name: str | None) -> None:
        """`POST /hf/{endpoint}` and `…/embed`: always a list of vectors, also for one string."""
        ticket = ticket_of(scope)
        ticket.face = "huggingface"  # the path of `POST /` does not tell
        name = _named(scope, name)
        form = decode(await read_body(receive), _EMBED)
        if form.inputs is None and form.input is not None:
            await answer_embeddings(self._gateway, scope, send, name, _as_openai(form, form.input))
            return
        endpoint, kind = addressed(self._gateway, ticket, name)
        texts = _texts_of(form)
        direction = form.option("truncation_direction")
        call = Embed(
            texts=texts,
            input_type=input_type_of(form.option("input_type")) or kind,
            prompt_name=form.option("prompt_name"),
            dimensions=form.option("dimensions"),
            normalize=form.option("normalize"),
            truncate=form.option("truncate"),
            truncate_left=None if direction is None else direction.lower() == "left",
            context=ticket.context(),
        )
        vectors = await embed(self._gateway, ticket, endpoint.name, call)
        rows = b",".join(in_encoding(vectors, Encoding.JSON).items)
        await respond(send, 200, b"[%b]" % rows, headers=headers_of(vectors))

    async def embeddings(self, scope: Scope, receive: Receive, send: Send, name: str | None) -> None:
        """`POST /hf/{endpoint}/v1/embeddings`: OpenAI's, whatever `model` says."""
        name = _named(scope, name)
        form = decode(await read_body(receive), EMBEDDINGS)
        await answer_embeddings(self._gateway, scope, send, name, form)

    async def tokenize(self, scope: Scope, receive: Receive, send: Send, name: str | None) -> None:
        """`POST /hf/{endpoint}/tokenize`: the tokens of each text."""
        ticket = ticket_of(scope)
        name = _named(scope, name)
        form = decode(await read_body(receive), _TOKENIZE)
        endpoint, _ = addressed(self._gateway, ticket, name)
        texts = texts_of(form.inputs, "inputs")
        call = Tokenize(texts=texts, add_special_tokens=form.add_special_tokens, context=ticket.context())
        result = await self._gateway.infer(endpoint.name, call)
        assert isinstance(result, Tokens)  # noqa: S101 - a Tokenize is answered with Tokens
        await respond(send, 200, msgspec.json.encode(result.items))

    async def info(self, request: Request) -> Response:
        """`GET /hf/{endpoint}/info`."""
        name = _named(request.scope, request.path_params.get("name"))
        endpoint, _ = addressed(self._gateway, ticket_of(request.scope), name)
        return Response(msgspec.json.encode(info_of(endpoint)), media_type="application/json")

    async def health(self, request: Request) -> Response:
        """`GET /hf/{endpoint}/health`, and of `/hf/{endpoint}` itself: 200 without a body, or 503."""
        name = _named(request.scope, request.path_params.get("name"))
        endpoint, _ = addressed(self._gateway, ticket_of(request.scope), name)
        reason = self._gateway.unready().get(endpoint.name)
        if reason is None:
            return Response()
        return Response(
            msgspec.json.encode({"error": reason, "error_type": "Unhealthy"}),
            503,
            media_type="application/json",
        )


def _named(scope: Scope, name: str | None) -> str:
    """The endpoint in the path, or the key's default."""
    key = ticket_of(scope).key
    name = name or (key.default_endpoint if key else None)
    if name is None:
        raise InvalidRequest(
            "This path belongs to the key's default endpoint, and the key has none.",
            remedy="Use /hf/{endpoint} as the base URL, or a key that was created with a default endpoint.",
        )
    return name


def _texts_of(form: _EmbedForm) -> Sequence[str]:
    if isinstance(form.inputs, dict):
        raise InvalidRequest(
            "[inputs] is an object, as for sentence similarity; this endpoint serves embeddings.",
            remedy="Send a string or a list of strings.",
        )
    if form.option("encoding_format") == "base64":
        raise InvalidRequest(
            "[encoding_format] cannot be base64 here: the answer is a list of lists of numbers.",
            remedy="Use /v1/embeddings under the same base URL, which gives base64.",
        )
    if form.inputs is None:
        raise InvalidRequest("[inputs] is missing.", remedy="Send a string or a list of strings.")
    return texts_of(form.inputs, "inputs")


def _as_openai(form: _EmbedForm, texts: Inputs) -> EmbeddingsForm:
    return EmbeddingsForm(
        input=texts,
        encoding_format=form.encoding_format,
        dimensions=form.dimensions,
        input_type=form.input_type,
    )
