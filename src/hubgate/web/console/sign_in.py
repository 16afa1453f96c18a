"""Signing in and out, and the two choices that need no sign-in: language and theme."""

from __future__ import annotations

import logging
import math

from starlette.responses import Response

from hubgate.domain.actor import ACTOR
from hubgate.domain.errors import Cause, NotAuthenticated, StoreFailed
from hubgate.domain.records import AuditLog
from hubgate.service.keys.access import Access
from hubgate.web.console.auth import Gatehouse
from hubgate.web.console.languages import languages
from hubgate.web.console.page_context import LANGUAGE_COOKIE, THEME_COOKIE, THEMES, Visit
from hubgate.web.console.session import NotedRefusals
from hubgate.web.http.ticket import ticket_of

_HOME = "/ui/models"
_A_YEAR = 365 * 86_400
_CONSOLE = "console"
"""Who turned somebody away of whom nothing is known."""

_log = logging.getLogger(__name__)


class SignIn:
    """The door."""

    def __init__(self, access: Access, gatehouse: Gatehouse, noted: NotedRefusals, audit: AuditLog) -> None:
        self._audit = audit
        self._access = access
        self._gatehouse = gatehouse
        self._noted = noted

    async def show(self, visit: Visit) -> Response:
        """The form; who is signed in already goes on."""
        following = _inside(visit.request.query_params.get("next", ""))
        return visit.go(following) if visit.session else _form(visit, following)

    async def enter(self, visit: Visit) -> Response:
        """Sign in with an admin key, which is forgotten at once: what stays is its id in a signed cookie."""
        form = await visit.form()
        following = _inside(form.get("next", ""))
        ticket = ticket_of(visit.request.scope)
        authorization = f"Bearer {form.get('key', '')}"
        try:
            key = self._access.authenticate(authorization, ticket.client)
        except NotAuthenticated as error:
            ticket.cause = error.cause
            ticket.note_refused_key(authorization)
            return await self._refuse(visit, following, error)
        if not key.admin:
            ticket.cause, ticket.key = Cause.NOT_PERMITTED, key
            await self._note_refusal(key.id, ticket.client)
            return _form(visit, following, visit.say("sign_in.not_admin"), 403)
        await self._note("session.begin", key.id, ticket.client)
        response = visit.go(following)
        self._gatehouse.sign_in(visit, key.id, response)
        return response

    async def leave(self, visit: Visit) -> Response:
        """Sign out."""
        if visit.session:
            await self._note("session.end", visit.session.key_id, _address(visit))
        response = visit.go("/ui/sign-in")
        self._gatehouse.sign_out(visit, response)
        return response

    async def _refuse(self, visit: Visit, following: str, error: NotAuthenticated) -> Response:
        if error.retry_after is None:
            await self._note_refusal(_CONSOLE, _address(visit))
            return _form(visit, following, visit.say("sign_in.unknown"), 401)
        response = _form(visit, following, visit.say("sign_in.wait"), 429)
        response.headers["retry-after"] = str(math.ceil(error.retry_after))
        return response

    async def _note_refusal(self, who: str, address: str) -> None:
        if self._noted.admit():
            await self._note("session.refuse", who, address)

    async def _note(self, verb: str, who: str, address: str) -> None:
        """Write it into the audit log; where that cannot be done, nobody is kept out by it."""
        ACTOR.set(who)
        try:
            await self._audit.record(verb, _CONSOLE, {"address": [None, address]})
        except StoreFailed as error:
            _log.warning("%s of %s from %s is not in the audit log: %s", verb, who, address, error)

    async def prefer(self, visit: Visit) -> Response:
        """Remember a language or a theme in this browser."""
        form = await visit.form()
        response = visit.go(_inside(form.get("back", "")))
        chosen = (
            (LANGUAGE_COOKIE, form.get("language"), languages()),
            (THEME_COOKIE, form.get("theme"), THEMES),
        )
        for cookie, value, known in chosen:
            if value in known:
                response.set_cookie(
                    cookie, str(value), max_age=_A_YEAR, path="/ui", httponly=True, samesite="lax"
                )
        return response


def _form(visit: Visit, following: str, fault: str = "", status: int = 200) -> Response:
    return visit.page("sign_in.html", status, following=following, fault=fault)


def _address(visit: Visit) -> str:
    return ticket_of(visit.request.scope).client


def _inside(path: str) -> str:
    """A path of the console, and no other site's address."""
    return path if path.startswith("/ui/") and "\\" not in path and path.isprintable() else _HOME
