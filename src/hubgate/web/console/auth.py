"""Wraps every page: the session, CSRF and origin checks, security headers, and errors rendered as HTML."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from hubgate.domain.errors import HubgateError, NotFound, NotPermitted
from hubgate.domain.records import Key
from hubgate.service.keys.access import Access
from hubgate.web.console.page_context import NAVIGATION, SAFE_METHODS, NavigationEntry, PageContext
from hubgate.web.console.session import COOKIE, MAX_AGE_SECONDS, Session, Sessions
from hubgate.web.http.errors import status_of
from hubgate.web.http.request_context import context_of, need_admin

PageHandler: TypeAlias = Callable[[PageContext], Awaitable[Response]]
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


class ConsoleAuth:
    """Creates the routes of pages, and signs admins in and out."""

    def __init__(
        self, access: Access, sessions: Sessions, navigation: Sequence[NavigationEntry] = NAVIGATION
    ) -> None:
        self._access = access
        self._sessions = sessions
        self._navigation = navigation

    def private(
        self, method: str, path: str, handler: PageHandler, *, polling: bool = False, upload: bool = False
    ) -> Route:
        """A page that requires a session; without one, it redirects to the sign-in page.

        Requests that an open page sends by itself (`polling`) do not keep the session alive: the admin may have left.
        The handler of an `upload` reads the form, and checks its CSRF token with `check_csrf_token`.
        """

        async def authenticated(context: PageContext) -> Response:
            session = context.session
            if session is None:
                back = context.return_path if method in SAFE_METHODS and not context.is_htmx else "/ui"
                return context.redirect(f"{SIGN_IN}?next={quote(back)}")
            if method not in SAFE_METHODS and not upload:
                token = context.request.headers.get("x-csrf-token") or (await context.form()).get("csrf", "")
                self.check_csrf_token(context, token)
            response = await handler(context)
            if not polling and (renewed := self._sessions.renew(session)):
                self._set_cookie(context.request, response, renewed)
            return response

        return self._route(method, path, authenticated)

    def public(self, method: str, path: str, handler: PageHandler) -> Route:
        """A page that needs no session."""
        return self._route(method, path, handler)

    def sign_in(self, context: PageContext, key: Key, response: Response) -> None:
        self._set_cookie(context.request, response, self._sessions.begin(key))

    async def sign_out(self, context: PageContext, response: Response) -> None:
        if context.session:
            await self._sessions.end(context.session)
        response.delete_cookie(COOKIE, path="/ui", httponly=True, samesite="strict")

    def _route(self, method: str, path: str, handler: PageHandler) -> Route:
        async def endpoint(request: Request) -> Response:
            context = PageContext.of(request, self._navigation)
            context.check_csrf_token = partial(self.check_csrf_token, context)
            try:
                await self._authenticate(context)
                _check_origin(request)
                response = await handler(context)
            except HubgateError as error:
                response = _render_error(context, error)
            except ClientDisconnect:  # handled by the guard
                raise
            except Exception:  # noqa: BLE001 - a browser gets every error as HTML
                request_id = context_of(request.scope).request_id
                _log.exception("request %s failed", request_id)
                remedy = f"The gateway's log has the details under request id {request_id}."
                response = _render_error(context, HubgateError("The console failed.", remedy=remedy))
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return Route(path, endpoint, methods=[method])

    async def _authenticate(self, context: PageContext) -> None:
        """Set the session from its cookie, unless its key is revoked, expired, replaced, or no longer an admin key."""
        session = self._sessions.read(context.request.cookies.get(COOKIE))
        if session is None:
            return
        try:
            key = self._access.find(session.key_id)
        except NotFound:
            return
        if not key.admin or (key.expires_at is not None and self._sessions.clock() >= key.expires_at):
            return
        if await self._sessions.is_current(session, key):
            context.session, context.csrf_token = session, self._sessions.csrf_token(session)
            context_of(context.request.scope).key = key
            need_admin(context.request.scope)  # attributes changes to the key in the audit log

    def check_csrf_token(self, context: PageContext, token: str) -> None:
        """Raises: NotPermitted."""
        if context.session is None or not self._sessions.is_csrf_token(context.session, token):
            raise NotPermitted(
                "This form does not belong to your session.",
                remedy="Reload the page and send the form again.",
            )

    def _set_cookie(self, request: Request, response: Response, session: Session) -> None:
        response.set_cookie(
            COOKIE,
            self._sessions.cookie(session),
            max_age=int(MAX_AGE_SECONDS),
            path="/ui",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )


def _check_origin(request: Request) -> None:
    """Reject forms from other sites; unlike the CSRF token, this also protects pages without a session."""
    site = request.headers.get("sec-fetch-site", "none")
    if request.method not in SAFE_METHODS and site not in {"same-origin", "none"}:
        raise NotPermitted("Another site sent this form.", remedy="Open the console and send it from there.")


def _render_error(context: PageContext, error: HubgateError) -> Response:
    """An error as a page, or as a notice for htmx."""
    context_of(context.request.scope).cause = error.cause
    template = "notice.html" if context.is_htmx else "problem.html"
    response = context.render(template, status_of(error), error=error)
    if context.is_htmx:
        response.headers.update({"HX-Retarget": "#notice", "HX-Reswap": "innerHTML"})
    if error.retry_after is not None:
        response.headers["retry-after"] = str(math.ceil(error.retry_after))
    return response
