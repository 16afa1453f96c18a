"""Sessions, CSRF and errors of console pages, with test pages and a test clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from scripted_gateway import ADMIN_KEY, authenticate
from starlette.responses import Response
from starlette.routing import Route

from hubgate.domain.errors import CapacityError
from hubgate.web.console.auth import ConsoleAuth
from hubgate.web.console.routes import FACE, console_routes
from hubgate.web.console.session import COOKIE, Sessions
from hubgate.web.http.face import Services
from hubgate.web.http.request_context import RequestContext
from hubgate.web.schemas.configuration import Configuration

if TYPE_CHECKING:
    import pytest
    from scripted_gateway import ScriptedGateway

    from hubgate.web.console.page_context import PageContext
    from hubgate.web.http.asgi import Message


async def _asked(route: Route, cookie: str = "", body: bytes = b"") -> tuple[int, dict[str, str], str]:
    """Status, headers and body of a GET (or POST) of a route."""
    sent: list[Message] = []
    method = next(iter((route.methods or set()) - {"HEAD"}))
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": route.path,
        "raw_path": route.path.encode(),
        "query_string": b"",
        "headers": [(b"cookie", f"{COOKIE}={cookie}".encode()), (b"host", b"gate")],
        "scheme": "https",
        "server": ("gate", 443),
        "hubgate.context": RequestContext("request-1", time.monotonic(), FACE),
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        sent.append(message)

    await route.handle(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:]).decode()


async def _fine(_: PageContext) -> Response:
    return Response("fine")


async def _broken(_: PageContext) -> Response:
    raise RuntimeError("a secret detail")


async def _busy(_: PageContext) -> Response:
    raise CapacityError("Full.", remedy="Wait.", retry_after=1.2)


async def test_an_unexpected_error_is_logged_and_shown_without_details(
    scripted: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    auth = ConsoleAuth(scripted.access, Sessions(time.time))
    status, headers, text = await _asked(auth.public("GET", "/x", _broken))
    assert status == 500
    assert "Internal error" in text
    assert "request-1" in text
    assert "secret detail" not in text
    assert "secret detail" in caplog.text
    assert headers["cache-control"] == "no-store"


async def test_a_retry_after_becomes_a_header(scripted: ScriptedGateway) -> None:
    auth = ConsoleAuth(scripted.access, Sessions(time.time))
    status, headers, _ = await _asked(auth.public("GET", "/x", _busy))
    assert (status, headers["retry-after"]) == (503, "2")


async def test_a_form_without_a_session_redirects_to_the_sign_in(scripted: ScriptedGateway) -> None:
    auth = ConsoleAuth(scripted.access, Sessions(time.time))
    status, headers, _ = await _asked(auth.private("POST", "/x", _fine))
    assert (status, headers["location"]) == (303, "/ui/sign-in?next=/ui")


async def test_an_active_session_gets_a_new_cookie_secure_over_https(scripted: ScriptedGateway) -> None:
    now = time.time()
    sessions = Sessions(lambda: now)
    auth = ConsoleAuth(scripted.access, sessions)
    key = authenticate(scripted.access, f"Bearer {ADMIN_KEY}")
    cookie = sessions.cookie(sessions.begin(key))
    route = auth.private("GET", "/x", _fine)
    assert "set-cookie" not in (await _asked(route, cookie))[1]
    now += 120
    status, headers, text = await _asked(route, cookie)
    assert (status, text) == (200, "fine")
    assert "Secure" in headers["set-cookie"]
    assert cookie not in headers["set-cookie"]


async def test_polling_does_not_keep_a_session_alive(scripted: ScriptedGateway) -> None:
    now = time.time()
    gateway, access = scripted.service, scripted.access
    services = Services(
        gateway=gateway,
        access=access,
        memory=None,
        hub=scripted.hub,
        parts=scripted.parts,
        configuration=Configuration(gateway, access),
    )
    routes = console_routes(services, clock=lambda: now)
    named = {
        (method, one.path): one for one in routes if isinstance(one, Route) for method in one.methods or ()
    }
    _, headers, _ = await _asked(named["POST", "/ui/sign-in"], body=f"key={ADMIN_KEY}".encode())
    cookie = headers["set-cookie"].partition(";")[0].partition("=")[2]
    now += 120
    for path, kept in (("/ui/models/states", False), ("/ui/models", True)):
        status, headers, _ = await _asked(named["GET", path], cookie)
        assert (status, "set-cookie" in headers) == (200, kept)


async def test_a_session_ends_when_its_key_expires(scripted: ScriptedGateway) -> None:
    now = time.time()
    sessions = Sessions(lambda: now)
    auth = ConsoleAuth(scripted.access, sessions)
    key, _ = await scripted.access.create("short", admin=True, expires_at=now + 60)
    cookie = sessions.cookie(sessions.begin(key))
    route = auth.private("GET", "/x", _fine)
    assert (await _asked(route, cookie))[0] == 200
    now += 61
    assert (await _asked(route, cookie))[0] == 303
