"""What every page passes: the visitor's session, the token of a sent form, the headers, and errors told as a page."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from hubgate.domain.errors import HubgateError, NotFound, NotPermitted
from hubgate.service.keys.access import Access
from hubgate.web.console.page_context import READING, Visit
from hubgate.web.console.session import COOKIE, LONGEST_SECONDS, Session, Sessions
from hubgate.web.http.errors import status_of
from hubgate.web.http.ticket import need_admin, ticket_of

Page: TypeAlias = Callable[[Visit], Awaitable[Response]]
SIGN_IN = "/ui/sign-in"
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
    "vary": "Accept-Language, Cookie",
}

_log = logging.getLogger(__name__)


class Gatehouse:
    """Makes the routes of pages, and signs visitors in and out."""

    def __init__(self, access: Access, sessions: Sessions) -> None:
        self._access = access
        self._sessions = sessions

    def inside(self, method: str, path: str, page: Page, *, by_itself: bool = False) -> Route:
        """A page for who is signed in; others are sent to sign in first.

        What an open page asks for `by_itself` keeps no session alive: its reader may be gone.
        """

        async def checked(visit: Visit) -> Response:
            session = visit.session
            if session is None:
                back = visit.here if method in READING and not visit.is_part else "/ui"
                return visit.go(f"{SIGN_IN}?next={quote(back)}")
            if method not in READING:
                await self._check_form(visit, session)
            response = await page(visit)
            if not by_itself and (renewed := self._sessions.renewed(session)):
                self._keep(visit.request, response, renewed)
            return response

        return self._route(method, path, checked)

    def outside(self, method: str, path: str, page: Page) -> Route:
        """A page for anybody."""
        return self._route(method, path, page)

    def sign_in(self, visit: Visit, key_id: str, response: Response) -> None:
        """Begin a session, whose cookie goes with the response."""
        self._keep(visit.request, response, self._sessions.begin(key_id))

    def sign_out(self, visit: Visit, response: Response) -> None:
        """End the visitor's session."""
        if visit.session:
            self._sessions.end(visit.session)
        response.delete_cookie(COOKIE, path="/ui", httponly=True, samesite="strict")

    def _route(self, method: str, path: str, page: Page) -> Route:
        async def answer(request: Request) -> Response:
            visit = Visit.of(request)
            self._recognise(visit)
            try:
                _check_origin(request)
                response = await page(visit)
            except HubgateError as error:
                response = _told(visit, error)
            except ClientDisconnect:  # the guard knows what to do
                raise
            except Exception:  # noqa: BLE001 - a browser is told in HTML, whatever the mistake is
                request_id = ticket_of(request.scope).request_id
                _log.exception("request %s failed", request_id)
                remedy = f"The gateway's log has the details under request id {request_id}."
                response = _told(visit, HubgateError("The console failed.", remedy=remedy))
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return Route(path, answer, methods=[method])

    def _recognise(self, visit: Visit) -> None:
        """Remember who visits, unless the key behind the session is revoked, expired or no admin's any more."""
        session = self._sessions.read(visit.request.cookies.get(COOKIE))
        if session is None:
            return
        try:
            key = self._access.find(session.key_id)
        except NotFound:
            return
        if key.admin and (key.expires_at is None or self._sessions.clock() < key.expires_at):
            visit.session, visit.form_token = session, self._sessions.form_token(session)
            ticket_of(visit.request.scope).key = key
            need_admin(visit.request.scope)

    async def _check_form(self, visit: Visit, session: Session) -> None:
        given = visit.request.headers.get("x-csrf-token") or (await visit.form()).get("csrf", "")
        if not self._sessions.is_form_token(session, given):
            raise NotPermitted(
                "This form does not belong to your session.",
                remedy="Reload the page, and send the form again.",
            )

    def _keep(self, request: Request, response: Response, session: Session) -> None:
        response.set_cookie(
            COOKIE,
            self._sessions.cookie(session),
            max_age=int(LONGEST_SECONDS),
            path="/ui",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )


def _check_origin(request: Request) -> None:
    """Refuse what another site sends, even to who has no session yet. Browsers say so themselves."""
    site = request.headers.get("sec-fetch-site", "none")
    if request.method not in READING and site not in {"same-origin", "none"}:
        raise NotPermitted("Another site sent this form.", remedy="Open the console and send it from there.")


def _told(visit: Visit, error: HubgateError) -> Response:
    """An error as a page; as a notice where htmx asked for a part of one."""
    ticket_of(visit.request.scope).cause = error.cause
    part = visit.is_part
    response = visit.page("notice.html" if part else "problem.html", status_of(error), error=error)
    if part:
        response.headers.update({"HX-Retarget": "#notice", "HX-Reswap": "innerHTML"})
    if error.retry_after is not None:
        response.headers["retry-after"] = str(math.ceil(error.retry_after))
    return response
