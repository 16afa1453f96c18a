"""The face for OpenAI's Responses API: `/v1/responses`. See CONTRACT.md."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.routing import BaseRoute, Route

from hubgate.core.off_loop import off_loop
from hubgate.core.transcoding import decode_reply
from hubgate.domain.calls import Generated, WireFormat
from hubgate.domain.errors import NotFound
from hubgate.service.gateway import Gateway
from hubgate.web.http.asgi import Scope, Send
from hubgate.web.http.face import Face, InferenceRoute, Services
from hubgate.web.http.request_context import context_of
from hubgate.web.openai.errors import render
from hubgate.web.openai.models import model_name
from hubgate.web.responses.requests import ResponseRequest, parse_request
from hubgate.web.responses.response import Response, new_response
from hubgate.web.responses.streams import NativeEncoder, ResponseEncoder, complete
from hubgate.web.responses.writer import ResponseWriter, write_whole
from hubgate.web.shared.chat_reply import CHAT_REPLY
from hubgate.web.shared.embeddings import resolve_endpoint
from hubgate.web.shared.exchange import Exchange
from hubgate.web.shared.generation import Fields, generate, stream
from hubgate.web.shared.sse import StreamEncoder


class Responses:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def create(self, scope: Scope, body: bytes, send: Send, name: str | None = None) -> Awaitable[None]:
        """`POST …/responses`; `name` is the endpoint's on a route below `/hf/{name}`."""
        fields = Fields(body)
        context = context_of(scope)
        model = fields.take("model", str)
        endpoint, _ = resolve_endpoint(self._gateway, context, name or model_name(context, model))
        exchange = Exchange(self._gateway, endpoint, context, send)
        request = parse_request(fields, context.call_context())
        return (_stream if request.streamed else _respond)(exchange, request)


async def missing(request: Request) -> HttpResponse:
    """`/v1/responses/{id}` and below it.

    Raises:
        NotFound: always.
    """
    raise NotFound(
        f"Nothing is served at {request.method} {request.url.path[:200]}: hubgate stores no responses.",
        remedy="Keep the response that POST /v1/responses returned, and send its items in the next [input].",
    )


async def _respond(exchange: Exchange, request: ResponseRequest) -> None:
    generated = await generate(exchange, request.call)
    response = new_response(exchange.endpoint.name)
    await exchange.respond(
        await off_loop(len(generated.body) + len(request.rest), _whole, response, generated, request)
    )


def _whole(response: Response, generated: Generated, request: ResponseRequest) -> bytes:
    if generated.wire_format is WireFormat.RESPONSES:
        return complete(generated.body, response.encode(request.rest))
    reply = decode_reply(generated.body, CHAT_REPLY)
    return write_whole(response, request.rest, reply, summarized=request.summarized)


async def _stream(exchange: Exchange, request: ResponseRequest) -> None:
    events = await stream(exchange, request.call)
    response = new_response(exchange.endpoint.name)
    encoder: StreamEncoder
    if events.wire_format is WireFormat.RESPONSES:
        encoder = NativeEncoder(response.encode(request.rest))
    else:
        encoder = ResponseEncoder(ResponseWriter(response, request.rest, summarized=request.summarized))
    await exchange.send_stream(events, encoder)


def _owns(segments: Sequence[str], is_hugging_face: bool) -> bool:
    first, *rest = segments
    if first == "hf":
        return len(rest) > 1 and rest[1].rstrip("/") in {"v1/responses", "responses"}
    return first == "responses" or (first == "v1" and bool(rest) and rest[0] == "responses")


def _routes(services: Services) -> Sequence[BaseRoute | InferenceRoute]:
    create = Responses(services.gateway).create
    paths = ("/v1/responses", "/responses", "/hf/{name}/v1/responses", "/hf/{name}/responses")
    return [
        *(InferenceRoute(path, create, is_slow=True) for path in paths),
        *(Route(f"{path}/{{id:path}}", missing, methods=["GET", "POST", "DELETE"]) for path in paths[:2]),
    ]


FACE = Face(name="responses", owns=_owns, render_error=render, routes=_routes)
