"""Bodies of a megabyte and more are read in a thread, and the gateway serves others meanwhile."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from generation_endpoints import add_generator, last_chat

from hubgate.core.off_loop import LARGE_BYTES
from hubgate.domain.errors import InvalidRequest
from hubgate.web.http.dispatch import Dispatch
from hubgate.web.http.face import InferenceRoute
from hubgate.web.http.request_context import RequestContext
from hubgate.web.openai.routes import FACE
from hubgate.web.responses.response import rest_of_response
from hubgate.web.shared.generation import decode_items

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway

    from hubgate.web.http.asgi import Scope, Send

COUNT = LARGE_BYTES // 20
LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "items": ("/v1/responses", {"input": [{"role": "user", "content": "a"}] * COUNT}),
    "parts": (
        "/v1/responses",
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}] * COUNT}]},
    ),
    "tools": ("/v1/responses", {"input": "a", "tools": [{"type": "function", "name": "f"}] * COUNT}),
    "Cohere's parts": (
        "/v2/chat",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * COUNT}]},
    ),
    "Cohere's tools": (
        "/v2/chat",
        {
            "messages": [{"role": "user", "content": "a"}],
            "strict_tools": True,
            "tools": [{"type": "function", "function": {"name": "f"}}] * COUNT,
        },
    ),
    "Cohere's turns": (
        "/v1/chat",
        {"message": "a", "chat_history": [{"role": "USER", "message": "a"}] * COUNT},
    ),
}


@pytest.mark.parametrize(("path", "body"), LARGE.values(), ids=LARGE)
async def test_large_chat_arrives_whole(scripted: ScriptedGateway, path: str, body: dict[str, Any]) -> None:
    await add_generator(scripted)
    reply = await scripted.request("POST", path, {"model": "llm", **body})
    assert reply.status == 200, reply.body
    chat = last_chat(scripted)
    assert len(json.dumps(chat["tools" if "tools" in body else "messages"])) >= COUNT


@pytest.mark.parametrize(("size", "is_off_loop"), [(LARGE_BYTES, False), (LARGE_BYTES + 1, True)])
async def test_handler_reads_a_large_body_in_another_thread(
    scripted: ScriptedGateway, size: int, is_off_loop: bool
) -> None:
    threads: list[threading.Thread] = []

    def handler(scope: Scope, body: bytes, send: Send) -> Any:
        threads.append(threading.current_thread())
        return done()

    async def done() -> None:
        threads.append(threading.current_thread())

    dispatch = Dispatch([InferenceRoute("/large", handler)], scripted.access.limits)

    async def receive() -> Any:
        return {"type": "http.request", "body": bytes(size), "more_body": False}

    async def send(message: Any) -> None: ...

    context = RequestContext("id", 0.0, FACE, client="-")
    scope = {"type": "http", "method": "POST", "path": "/large", "headers": [], "hubgate.context": context}
    await dispatch(scope, receive, send)
    here = threading.current_thread()
    assert [one is not here for one in threads] == [is_off_loop, False]


def test_items_of_a_large_list_are_decoded_one_by_one_with_the_same_errors() -> None:
    for count in (3, COUNT):
        raw = b"[" + b",".join([b'{"role":"user","content":"a"}'] * count) + b",1]"
        with pytest.raises(InvalidRequest, match=rf"\[messages\[{count}\]\] must be an object, not a number"):
            decode_items(raw, dict[str, Any], "messages")


def test_response_repeats_no_more_than_a_megabyte_of_its_request() -> None:
    large = b'{"a":"%b"}' % (b"x" * LARGE_BYTES)
    rest = rest_of_response({"metadata": large, "user": b'"ada"'})
    assert len(rest) < LARGE_BYTES
    assert b'"metadata":{}' in rest
    assert b'"user":"ada"' in rest
