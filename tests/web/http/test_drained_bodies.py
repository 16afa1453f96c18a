"""How long the rest of a body is read before an error response, on a clock of the test."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from virtual_time import now, run

from hubgate.domain.records import Key
from hubgate.web.http.body import Body, BodyMemory
from hubgate.web.http.request_context import RequestContext
from hubgate.web.openai.routes import FACE

PART = 65_536


@pytest.mark.parametrize(
    ("seconds", "keyed", "is_whole"), [(4, False, True), (20, False, False), (20, True, True)]
)
def test_caller_with_a_key_may_send_a_refused_body_to_its_end(
    seconds: int, keyed: bool, is_whole: bool
) -> None:
    key = Key(id="1", name="app", digest=b"", created_at=0.0) if keyed else None
    context = RequestContext("id", 0.0, FACE, client="-", key=key)
    scope = {"headers": [(b"connection", b"close")], "hubgate.context": context}
    left = seconds

    async def receive() -> Any:
        nonlocal left
        await asyncio.sleep(1)
        left -= 1
        return {"type": "http.request", "body": bytes(PART), "more_body": left > 0}

    async def drain() -> None:
        body = Body(scope, receive, seconds * PART, 1 << 30, BodyMemory(0))
        await body.drain()
        assert body.whole is is_whole
        assert now() <= seconds

    run(drain())
