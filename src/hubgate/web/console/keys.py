"""The keys page: who may call the gate, and what each may do."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from hubgate.domain.calls import InputType
from hubgate.domain.errors import HubgateError
from hubgate.domain.keys import Key
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.web.console.page_context import Visit

_LIMITS = ("requests_per_minute", "tokens_per_minute")
_NAME = re.compile(r"[^\s,\u060c\u3001\uff0c]+")
"""Names stand apart by spaces, lines or the commas of any of the languages."""
_MOST_OTHERS = 200
_MOST_NAMES = 20
"""That are offered for the scope of a key; to see others, one types."""
_MOST_FRESH = 100


class _FreshKeys:
    """Keys that were just created and not shown yet, each for the session that created it."""

    def __init__(self) -> None:
        self._plain: dict[tuple[str, str], str] = {}

    def keep(self, visit: Visit, key_id: str, plain: str) -> None:
        """Keep a key until its page asks for it; where too many were never asked for, the oldest goes."""
        while len(self._plain) >= _MOST_FRESH:
            del self._plain[next(iter(self._plain))]
        self._plain[_session_of(visit), key_id] = plain

    def take(self, visit: Visit, key_id: str) -> str:
        """A key, once; empty if there is none to show. A HEAD request shows nothing, so it takes nothing."""
        if visit.request.method == "HEAD":
            return ""
        return self._plain.pop((_session_of(visit), key_id), "")


class KeysPage:
    """Gateway keys."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access
        self._fresh = _FreshKeys()

    async def show(self, visit: Visit) -> Response:
        """Every key, without the keys themselves; a key that was just created is shown once."""
        asked = visit.request.query_params
        created, keys = asked.get("created", ""), self._access.list()
        named = {key.id: key.name for key in keys}
        return visit.page(
            "keys.html",
            keys=keys,
            saved=named.get(asked.get("saved", ""), ""),
            created=named.get(created, ""),
            plain=self._fresh.take(visit, created),
            now=time.time(),
        )

    async def ask_create(self, visit: Visit) -> Response:
        """The empty form of a new key."""
        return self._form_page(visit, None, {})

    async def create(self, visit: Visit) -> Response:
        """Create a key, and go to the page that shows it: loading that page again creates nothing."""
        form = await visit.form()
        faults: dict[str, str] = {}
        rights = _rights(form, faults)
        if faults:
            return self._form_page(visit, None, form, faults=faults)
        try:
            self._check({*rights["endpoints"], rights["default_endpoint"]})
            key, plain = await self._access.create(form.get("name", ""), **rights)
        except HubgateError as error:
            return self._form_page(visit, None, form, error=error)
        self._fresh.keep(visit, key.id, plain)
        return visit.go(f"/ui/keys?created={quote(key.id)}")

    async def ask_change(self, visit: Visit) -> Response:
        """The form of a key that is in force."""
        key = self._access.find(visit.request.path_params["key"])
        return self._form_page(visit, key, _form_of(key))

    async def change(self, visit: Visit) -> Response:
        """Change what a key is called and may do, at once; it stays the same key."""
        old = self._access.find(visit.request.path_params["key"])
        form = {**await visit.form(), "role": "admin" if old.admin else ""}
        faults: dict[str, str] = {}
        rights = _rights(form, faults)
        if faults:
            return self._form_page(visit, old, form, faults=faults)
        if form.get("expires", "") == _day_of(old.expires_at):
            rights["expires_at"] = old.expires_at
        try:
            named = {*rights["endpoints"], rights["default_endpoint"]}
            self._check(named.difference(old.endpoints, [old.default_endpoint]))
            changed = await self._access.change(old.id, name=form["name"], **rights)
        except HubgateError as error:
            return self._form_page(visit, old, form, error=error)
        return visit.go(f"/ui/keys?saved={quote(changed.id)}")

    async def names(self, visit: Visit) -> Response:
        """Names to add to the scope that stands in the form."""
        return visit.page("scope_names.html", **self._offered(await visit.form()))

    async def scope(self, visit: Visit) -> Response:
        """The scope with one more name."""
        form = await visit.form()
        names = tuple(dict.fromkeys([*_names(form), *_names({"endpoints": form.get("add", "")})]))
        form = {"endpoints": "\n".join(names)}
        return visit.page("scope.html", form=form, faults={}, added=True, **self._offered(form))

    async def ask_revoke(self, visit: Visit) -> Response:
        """The question whether to revoke a key."""
        return visit.page("revoke.html", key=self._access.find(visit.request.path_params["key"]))

    async def revoke(self, visit: Visit) -> Response:
        """Put a key out of force at once."""
        await self._access.revoke(visit.request.path_params["key"])
        return visit.go("/ui/keys")

    def _check(self, names: Iterable[str | None]) -> None:
        """Raises EndpointNotFound if one of these is not there."""
        for name in filter(None, names):
            self._gateway.find(name)

    def _offered(self, form: Mapping[str, str]) -> dict[str, Any]:
        """The first models that fit what is looked for and do not stand in the scope, and how many more there are."""
        chosen, text = set(_names(form)), form.get("find", "").casefold()
        every = (endpoint.name for endpoint in self._gateway.endpoints())
        fitting = [name for name in every if text in name and name not in chosen]
        return {"names": fitting[:_MOST_NAMES], "more": max(0, len(fitting) - _MOST_NAMES)}

    def _form_page(self, visit: Visit, key: Key | None, form: Mapping[str, str], **more: Any) -> Response:
        """The form of a key, or without one that of a new key."""
        others = [endpoint.name for endpoint in self._gateway.endpoints()][:_MOST_OTHERS]
        values = {"others": others, "added": False, "faults": {}, "error": None, **more}
        return visit.page("key.html", key=key, form=form, **self._offered(form), **values)


def _session_of(visit: Visit) -> str:
    return visit.session.nonce if visit.session else ""


def _rights(form: Mapping[str, str], faults: dict[str, str]) -> dict[str, Any]:
    """What `Access.create` takes; fields that cannot be read go to the faults."""
    if not form.get("name"):
        faults["name"] = "fault.missing"
    admin = form.get("role") == "admin"
    limits: dict[str, int | None] = {}
    for name in _LIMITS:
        text = form.get(name, "")
        limits[name] = int(text) if text.isdecimal() and len(text) < 16 else None
        if text and not limits[name]:
            faults[name] = "fault.whole"
    return {
        "admin": admin,
        "bulk": form.get("class") == "bulk",
        "endpoints": () if admin else _names(form),
        "default_endpoint": form.get("default_endpoint") or None,
        "input_type": InputType(form["input_type"]) if form.get("input_type") in set(InputType) else None,
        "expires_at": _end_of(form.get("expires", ""), faults),
        **limits,
    }


def _names(form: Mapping[str, str]) -> tuple[str, ...]:
    """The names that stand in the field of the scope, each once."""
    return tuple(dict.fromkeys(_NAME.findall(form.get("endpoints", ""))))


def _form_of(key: Key) -> dict[str, str]:
    """The form in which a key's rights stand."""
    values: dict[str, object] = {
        "name": key.name,
        "class": "bulk" if key.bulk else "",
        "endpoints": "\n".join(key.endpoints),
        "default_endpoint": key.default_endpoint,
        "input_type": key.input_type,
        "expires": _day_of(key.expires_at),
        **{name: getattr(key, name) for name in _LIMITS},
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _day_of(seconds: float | None) -> str:
    """The day of a moment in the gate's time zone, as browsers send days."""
    return "" if seconds is None else time.strftime("%Y-%m-%d", time.localtime(seconds))


def _end_of(day: str, faults: dict[str, str]) -> float | None:
    """The last moment of a day in the gate's time zone, as browsers send days."""
    if not day:
        return None
    try:
        start = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
        return start.replace(hour=23, minute=59, second=59, tzinfo=None).astimezone().timestamp()
    except (ValueError, OverflowError):  # the first and the last years have days that no time zone can tell
        faults["expires"] = "fault.day"
        return None
