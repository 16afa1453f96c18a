"""The keys page: who may call the gate, and what each may do."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hubgate.domain.calls import InputType
from hubgate.domain.errors import HubgateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.responses import Response

    from hubgate.domain.keys import Key
    from hubgate.service.access import Access
    from hubgate.service.gateway import Gateway
    from hubgate.web.console.visit import Visit

_LIMITS = ("requests_per_minute", "tokens_per_minute")
_NAME = re.compile(r"[^\s,\u060c\u3001\uff0c]+")
"""Names stand apart by spaces, lines or the commas of any of the languages."""
_MOST_OTHERS = 200
_MOST_NAMES = 20
"""That are offered for the scope of a key; to see others, one types."""


class KeysPage:
    """Gateway keys."""

    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access

    async def show(self, visit: Visit) -> Response:
        """Every key, without the keys themselves."""
        return self._page(visit)

    async def create(self, visit: Visit) -> Response:
        """Make a key; the answer shows it, this once."""
        form = await visit.form()
        faults: dict[str, str] = {}
        rights = _rights(form, faults)
        if faults:
            return self._page(visit, form=form, faults=faults, opened=True)
        try:
            self._check({*rights["endpoints"], rights["default_endpoint"]})
            key, plain = await self._access.create(form.get("name", ""), **rights)
        except HubgateError as error:
            return self._page(visit, form=form, error=error, opened=True)
        return self._page(visit, made=key, plain=plain)

    async def ask_change(self, visit: Visit) -> Response:
        """The form of a key that is in force."""
        key = self._access.find(visit.request.path_params["key"])
        return self._change_page(visit, key, _form_of(key))

    async def change(self, visit: Visit) -> Response:
        """Change what a key is called and may do, at once; it stays the same key."""
        old = self._access.find(visit.request.path_params["key"])
        form = {**await visit.form(), "role": "admin" if old.admin else ""}
        faults: dict[str, str] = {}
        rights = _rights(form, faults)
        if faults:
            return self._change_page(visit, old, form, faults=faults)
        if form.get("expires", "") == _day_of(old.expires_at):
            rights["expires_at"] = old.expires_at
        try:
            named = {*rights["endpoints"], rights["default_endpoint"]}
            self._check(named.difference(old.endpoints, [old.default_endpoint]))
            changed = await self._access.change(old.id, name=form["name"], **rights)
        except HubgateError as error:
            return self._change_page(visit, old, form, error=error)
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

    def _change_page(self, visit: Visit, key: Key, form: Mapping[str, str], **more: Any) -> Response:
        values = {"faults": {}, "error": None, **more}
        return visit.page("key.html", key=key, form=form, **self._choices(form), **values)

    def _choices(self, form: Mapping[str, str]) -> dict[str, Any]:
        others = [endpoint.name for endpoint in self._gateway.endpoints()][:_MOST_OTHERS]
        return {"others": others, "added": False, **self._offered(form)}

    def _page(self, visit: Visit, **more: Any) -> Response:
        values: dict[str, Any] = {
            "form": {},
            "faults": {},
            "error": None,
            "opened": False,
            "made": None,
            "plain": "",
            **more,
        }
        keys, saved = self._access.list(), visit.request.query_params.get("saved", "")
        return visit.page(
            "keys.html",
            keys=keys,
            saved=next((key.name for key in keys if key.id == saved), ""),
            now=time.time(),
            **self._choices(values["form"]),
            **values,
        )


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
