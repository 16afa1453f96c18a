"""Signing in and out, and the preferences that need no session: language and theme."""

from __future__ import annotations

import logging
import math

from starlette.responses import Response

from hubgate.domain.errors import Cause, NotAuthenticated, StoreFailed, UnknownKey
from hubgate.domain.records import ACTOR
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.service.keys.credentials import read_credentials
from hubgate.web.console.auth import SIGN_IN, ConsoleAuth
from hubgate.web.console.languages import languages
from hubgate.web.console.page_context import HOME, LANGUAGE_COOKIE, THEME_COOKIE, THEMES, PageContext
from hubgate.web.console.session import RefusalRecordLimit
from hubgate.web.http.request_context import context_of

_ONE_YEAR = 365 * 86_400
_CONSOLE = "console"
"""The actor in the audit log where the key is unknown."""

_log = logging.getLogger(__name__)


class SignInPage:
    """Sign-in, sign-out and preferences."""

    def __init__(
        self, access: Access, auth: ConsoleAuth, record_limit: RefusalRecordLimit, gateway: Gateway
    ) -> None:
        self._audit = gateway.audit
        self._access = access
        self._auth = auth
        self._record_limit = record_limit

    async def show(self, context: PageContext) -> Response:
        next_path = _console_path(context.request.query_params.get("next", ""))
        return context.redirect(next_path) if context.session else _form(context, next_path)

    async def sign_in(self, context: PageContext) -> Response:
        """Exchange an admin key for a session cookie; the key itself is not kept."""
        form = await context.form()
        next_path = _console_path(form.get("next", ""))
        request_context = context_of(context.request.scope)
        credentials = read_credentials(f"Bearer {form.get('key', '')}")
        try:
            known = self._access.accept_known(credentials, request_context.started)
            key = known or await self._access.accept_new(credentials, request_context.client)
        except NotAuthenticated as error:
            request_context.cause = error.cause
            request_context.record_refused_key(credentials)
            if isinstance(error, UnknownKey):
                claimed_id = credentials.claimed_id if credentials else ""
                error = await self._access.count_wrong_key(error, claimed_id, request_context.client)
            return await self._refuse(context, next_path, error)
        if not key.admin:
            request_context.cause, request_context.key = Cause.NOT_PERMITTED, key
            await self._record_refusal(key.id, request_context.client)
            return _form(context, next_path, context.translate("sign_in.not_admin"), 403)
        await self._record("session.begin", key.id, request_context.client)
        response = context.redirect(next_path)
        self._auth.sign_in(context, key, response)
        return response

    async def sign_out(self, context: PageContext) -> Response:
        if context.session:
            await self._record("session.end", context.session.key_id, _client(context))
        response = context.redirect(SIGN_IN)
        await self._auth.sign_out(context, response)
        return response

    async def set_preferences(self, context: PageContext) -> Response:
        """Store a language or a theme in a cookie."""
        form = await context.form()
        response = context.redirect(_console_path(form.get("back", "")))
        chosen = (
            (LANGUAGE_COOKIE, form.get("language"), languages()),
            (THEME_COOKIE, form.get("theme"), THEMES),
        )
        for cookie, value, known in chosen:
            if value in known:
                response.set_cookie(
                    cookie, str(value), max_age=_ONE_YEAR, path="/ui", httponly=True, samesite="lax"
                )
        return response

    async def _refuse(self, context: PageContext, next_path: str, error: NotAuthenticated) -> Response:
        if error.retry_after is None:
            await self._record_refusal(_CONSOLE, _client(context))
            return _form(context, next_path, context.translate("sign_in.unknown"), 401)
        response = _form(context, next_path, context.translate("sign_in.wait"), 429)
        response.headers["retry-after"] = str(math.ceil(error.retry_after))
        return response

    async def _record_refusal(self, actor: str, address: str) -> None:
        if await self._record_limit.admit():
            await self._record("session.refuse", actor, address)

    async def _record(self, verb: str, actor: str, address: str) -> None:
        """Write to the audit log; if that fails, signing in and out still works."""
        ACTOR.set(actor)
        try:
            await self._audit.record(verb, _CONSOLE, {"address": [None, address]})
        except StoreFailed as error:
            _log.warning("%s of %s from %s is not in the audit log: %s", verb, actor, address, error)


def _form(context: PageContext, next_path: str, fault: str = "", status: int = 200) -> Response:
    return context.render("sign_in.html", status, next_path=next_path, fault=fault)


def _client(context: PageContext) -> str:
    return context_of(context.request.scope).client


def _console_path(path: str) -> str:
    """The path if it is one of the console's, never another site's; otherwise the home page."""
    return path if path.startswith("/ui/") and "\\" not in path and path.isprintable() else HOME
