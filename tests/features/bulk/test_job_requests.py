"""The priority and deadline of a bulk job's requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from scripted_gateway import ADMIN_KEY

from hubgate.domain.records import Key
from hubgate.web.http.request_context import BULK_PATIENCE, RequestContext
from hubgate.web.openai.routes import FACE

if TYPE_CHECKING:
    from scripted_gateway import ScriptedGateway


def test_bulk_request_has_lower_priority_and_a_longer_deadline() -> None:
    key = Key(id="k", name="k", digest=b"", created_at=0.0)
    asks = RequestContext("id", 100.0, FACE, key=key, bulk=True).call_context()
    assert (asks.bulk, asks.deadline) == (True, 100.0 + BULK_PATIENCE)
    asks = RequestContext("id", 100.0, FACE, key=key).call_context()
    assert (asks.bulk, asks.deadline) == (False, None)


async def test_priority_class_is_set_by_a_header(scripted: ScriptedGateway) -> None:
    for said, bulk in ((b"bulk", True), (b"BULK ", True), (b"interactive", False)):
        await _embed(scripted, ADMIN_KEY, said)
        assert scripted.script.embedded.context.bulk is bulk


async def _embed(gateway: ScriptedGateway, key: str, said: bytes) -> None:
    body = b'{"model": "e5", "input": "a text"}'
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"x-hubgate-class", said)]
    path = "/v1/embeddings"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    requests = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, object]:
        if not requests:
            await asyncio.Event().wait()
        return requests.pop()

    async def send(message: object) -> None:
        del message

    await gateway.app({**scope, "headers": headers}, receive, send)
