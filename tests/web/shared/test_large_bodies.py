"""Bodies of a megabyte and more are read in a thread, and the gateway serves others meanwhile."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from console_client import ConsoleClient
from generation_endpoints import add_generator, last_chat

from hubgate.core.off_loop import LARGE_BYTES
from hubgate.domain.errors import BodyTooLarge, InvalidRequest
from hubgate.web.http.asgi import MAX_VALUES, check_values
from hubgate.web.http.dispatch import Dispatch
from hubgate.web.http.face import InferenceRoute
from hubgate.web.http.request_context import RequestContext
from hubgate.web.openai.routes import FACE
from hubgate.web.responses.response import rest_of_response
from hubgate.web.shared.generation import decode_items

if TYPE_CHECKING:
    from collections.abc import Sequence

    from running_gateway import RunningGateway
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


@pytest.mark.parametrize(
    ("size", "is_slow", "is_off_loop"),
    [
        (LARGE_BYTES, False, False),
        (LARGE_BYTES + 1, False, True),
        (LARGE_BYTES // 4, True, False),
        (LARGE_BYTES // 4 + 1, True, True),
    ],
)
async def test_handler_reads_a_large_body_in_another_thread(
    scripted: ScriptedGateway, size: int, is_slow: bool, is_off_loop: bool
) -> None:
    threads: list[threading.Thread] = []

    def handler(scope: Scope, body: bytes, send: Send) -> Any:
        threads.append(threading.current_thread())
        return done()

    async def done() -> None:
        threads.append(threading.current_thread())

    dispatch = Dispatch([InferenceRoute("/large", handler, is_slow)], scripted.access.limits)

    async def receive() -> Any:
        return {"type": "http.request", "body": bytes(size), "more_body": False}

    async def send(message: Any) -> None: ...

    context = RequestContext("id", 0.0, FACE, client="-")
    scope = {"type": "http", "method": "POST", "path": "/large", "headers": [], "hubgate.context": context}
    await dispatch(scope, receive, send)
    here = threading.current_thread()
    assert [one is not here for one in threads] == [is_off_loop, False]


def test_python_converts_the_items_of_chats_of_responses_and_cohere_only(scripted: ScriptedGateway) -> None:
    routes: Sequence[object] = scripted.app._app.routes  # type: ignore[attr-defined]
    slow = {one.path for one in routes if isinstance(one, InferenceRoute) and one.is_slow}
    assert slow == {
        *("/v1/responses", "/responses", "/hf/{name}/v1/responses", "/hf/{name}/responses"),
        *("/v1/chat", "/v2/chat", "/v1/v1/chat", "/v1/v2/chat"),
    }


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


MANY = b"[%b[]]" % (b"[]," * (LARGE_BYTES // 3 + 1))
CALLS = {
    "/v1/embeddings": "input",
    "/v1/completions": "prompt",
    "/v1/chat/completions": "messages",
    "/v1/responses": "input",
    "/v1/rerank": "documents",
    "/v2/embed": "texts",
    "/v2/chat": "messages",
    "/hf/llm": "inputs",
    "/hf/llm/embed": "inputs",
    "/hf/llm/predict": "inputs",
    "/hf/llm/rerank": "texts",
    "/hf/llm/generate": "inputs",
    "/_inference/chat_completion/llm/_stream": "messages",
    "/_inference/llm": "task_settings",
    "/v1/batches": "metadata",
    "/api/keys": "endpoints",
    "/api/config": "secrets",
    "/api/diagnose": "options",
}


@pytest.mark.parametrize(("path", "field"), CALLS.items(), ids=CALLS)
async def test_body_with_too_many_values_is_refused(scripted: ScriptedGateway, path: str, field: str) -> None:
    await add_generator(scripted)
    body = b'{"model":"llm","%b":%b}' % (field.encode(), MANY)
    reply = await scripted.request("POST", path, body)
    assert reply.status == 413, reply.body
    assert "The request body has more than 524,288 values." in str(reply.body)


async def test_elasticsearch_endpoint_with_too_many_settings_is_refused(scripted: ScriptedGateway) -> None:
    reply = await scripted.request("PUT", "/_inference/rerank/a", b'{"task_settings":%b}' % MANY)
    assert reply.status == 413


def test_console_reads_a_large_form(gateway: RunningGateway) -> None:
    console = ConsoleClient(gateway)
    console.sign_in()
    reply = console.post("/ui/preferences", {"back": "é" * LARGE_BYTES, "theme": "dark"})
    assert (reply.status, console.cookies["hubgate_theme"]) == (303, "dark")


@pytest.mark.parametrize("text", ["a,b,[", '"a","b",', '\\",[\\\\"', "\\" * 5 + '",'])
@pytest.mark.parametrize("shift", range(4))
def test_text_has_no_values(text: str, shift: int) -> None:
    """Whatever it contains, and wherever it is cut in the scan."""
    texts = json.dumps(["a" * shift + text * (LARGE_BYTES // len(text)), text]).encode()
    body = b'{"input":%b,"a":[%b]}'
    of_texts = 4  # commas and brackets
    check_values(body % (texts, b"1," * (MAX_VALUES - of_texts - 1) + b"1"))
    with pytest.raises(BodyTooLarge):
        check_values(body % (texts, b"1," * (MAX_VALUES - of_texts) + b"1"))


def test_only_a_large_body_is_refused_for_its_values() -> None:
    numbers = b"[" + b"1," * MAX_VALUES + b"1]"
    with pytest.raises(BodyTooLarge):
        check_values(numbers)
    check_values(numbers[: LARGE_BYTES - 2] + b"1]")
    check_values(b"[%b]" % (b" " * LARGE_BYTES + numbers[1 : MAX_VALUES * 2 - 2]))
    check_values(b'["%b"]' % numbers)
