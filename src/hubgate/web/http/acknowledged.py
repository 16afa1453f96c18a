"""Answers a change when every gateway of the database follows it."""

from __future__ import annotations

from hubgate.domain.records import MADE, ChangesMade
from hubgate.service.cluster.gates import Gates
from hubgate.web.http.asgi import AsgiApp, Message, Receive, Scope, Send

PENDING = b"x-hubgate-pending"
"""The gateways that did not follow the change in time."""


class Acknowledged:
    """Holds back the response to a request that changed something until all gateways know, for a second at most.

    So whoever has the response finds the change at every gateway.
    """

    def __init__(self, app: AsgiApp, gates: Gates) -> None:
        self._app = app
        self._gates = gates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        made = ChangesMade()
        token = MADE.set(made)

        async def send_when_followed(message: Message) -> None:
            if message["type"] == "http.response.start" and made.version:
                behind = await self._gates.behind(made.version)
                pending = [(PENDING, ", ".join(behind).encode())] if behind else []
                message["headers"] = [*message.get("headers", ()), *pending]
            await send(message)

        try:
            await self._app(scope, receive, send_when_followed)
        finally:
            MADE.reset(token)
