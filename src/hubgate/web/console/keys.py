"""The keys page: who may call the gateway, and which models."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.responses import Response

from hubgate.domain.endpoint import InputType
from hubgate.domain.errors import HubgateError
from hubgate.domain.records import Key
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.web.console.page_context import PageContext
from hubgate.web.console.paging import PER_PAGE, numbered_page

_LIMITS = ("requests_per_minute", "tokens_per_minute")
_NAME = re.compile(r"[^\s,\u060c\u3001\uff0c]+")
"""Names are separated by spaces, line breaks, or the commas of any of the languages."""
_MAX_OTHERS = 200
_MAX_SUGGESTIONS = 20
_MAX_NEW_KEYS = 100


class _NewKeys:
    """Keys that were just created and not shown yet, each for the session that created it."""

    def __init__(self) -> None:
        self._secrets: dict[tuple[str, str], str] = {}

    def keep(self, context: PageContext, key_id: str, secret: str) -> None:
        """Keep a key until its page is loaded. Beyond the limit, the oldest is dropped."""
        while len(self._secrets) >= _MAX_NEW_KEYS:
            del self._secrets[next(iter(self._secrets))]
        self._secrets[_session_of(context), key_id] = secret

    def take(self, context: PageContext, key_id: str) -> str:
        """The key, once; empty if there is none. A HEAD request shows nothing, so it takes nothing."""
        if context.request.method == "HEAD":
            return ""
        return self._secrets.pop((_session_of(context), key_id), "")


class KeysPage:
    def __init__(self, gateway: Gateway, access: Access) -> None:
        self._gateway = gateway
        self._access = access
        self._new_keys = _NewKeys()

    async def show(self, context: PageContext) -> Response:
        """A page of the keys. The secret of a key that was just created is shown once."""
        query = context.request.query_params
        text, created, names = query.get("q", "").strip()[:200], query.get("created", ""), self._access.names
        found = self._access.search(text)
        shown = numbered_page(found, query)
        return context.render(
            "keys/list.html",
            keys=[self._access.find(key_id) for key_id in shown.items],
            text=text,
            shown=shown,
            has_search=len(names) > PER_PAGE,
            saved=names.get(query.get("saved", ""), ""),
            created=names.get(created, ""),
            plain=self._new_keys.take(context, created),
            now=time.time(),
        )

    async def new(self, context: PageContext) -> Response:
        return self._form_page(context, None, {})

    async def create(self, context: PageContext) -> Response:
        """Create a key and redirect to the page that shows it, so that reloading creates nothing."""
        form = await context.form()
        faults: dict[str, str] = {}
        fields = _parse(form, faults)
        if faults:
            return self._form_page(context, None, form, faults=faults)
        try:
            self._check({*fields["endpoints"], fields["default_endpoint"]})
            key, secret = await self._access.create(form.get("name", ""), **fields)
        except HubgateError as error:
            return self._form_page(context, None, form, error=error)
        self._new_keys.keep(context, key.id, secret)
        return context.redirect(f"/ui/keys?created={quote(key.id)}")

    async def edit(self, context: PageContext) -> Response:
        key = self._access.find(context.request.path_params["key"])
        return self._form_page(context, key, _form_of(key))

    async def update(self, context: PageContext) -> Response:
        """Change the name and the rights of a key; the key itself stays the same."""
        old = self._access.find(context.request.path_params["key"])
        form = {**await context.form(), "role": "admin" if old.admin else ""}
        faults: dict[str, str] = {}
        fields = _parse(form, faults)
        if faults:
            return self._form_page(context, old, form, faults=faults)
        if form.get("expires", "") == _day_of(old.expires_at):
            fields["expires_at"] = old.expires_at
        try:
            named = {*fields["endpoints"], fields["default_endpoint"]}
            self._check(named.difference(old.endpoints, [old.default_endpoint]))
            changed = await self._access.change(old.id, name=form["name"], **fields)
        except HubgateError as error:
            return self._form_page(context, old, form, error=error)
        return context.redirect(f"/ui/keys?saved={quote(changed.id)}")

    async def suggest_models(self, context: PageContext) -> Response:
        """Models to add to the scope in the form."""
        return context.render("keys/scope_names.html", **self._suggestions(await context.form()))

    async def add_to_scope(self, context: PageContext) -> Response:
        """The scope field with one more model."""
        form = await context.form()
        names = tuple(dict.fromkeys([*_names(form), *_names({"endpoints": form.get("add", "")})]))
        form = {"endpoints": "\n".join(names)}
        return context.render("keys/scope.html", form=form, faults={}, added=True, **self._suggestions(form))

    async def confirm_revoke(self, context: PageContext) -> Response:
        return context.render("keys/revoke.html", key=self._access.find(context.request.path_params["key"]))

    async def revoke(self, context: PageContext) -> Response:
        await self._access.revoke(context.request.path_params["key"])
        return context.redirect("/ui/keys")

    def _check(self, names: Iterable[str | None]) -> None:
        """Raises EndpointNotFound if one of the names is unknown."""
        for name in filter(None, names):
            self._gateway.registry.resolve(name)

    def _suggestions(self, form: Mapping[str, str]) -> dict[str, Any]:
        """The first models and aliases that match the search and are not in the scope yet, and how many more there are."""
        chosen, text = set(_names(form)), form.get("find", "").casefold()
        names = (endpoint.name for endpoint in self._gateway.visible(lambda _: True))
        matches = [name for name in names if text in name and name not in chosen]
        return {"names": matches[:_MAX_SUGGESTIONS], "more": max(0, len(matches) - _MAX_SUGGESTIONS)}

    def _form_page(
        self, context: PageContext, key: Key | None, form: Mapping[str, str], **more: Any
    ) -> Response:
        """The form of a key, or of a new one."""
        others = [endpoint.name for endpoint in self._gateway.registry.endpoints()][:_MAX_OTHERS]
        values = {"others": others, "added": False, "faults": {}, "error": None, **more}
        return context.render("keys/form.html", key=key, form=form, **self._suggestions(form), **values)


def _session_of(context: PageContext) -> str:
    return context.session.nonce if context.session else ""


def _parse(form: Mapping[str, str], faults: dict[str, str]) -> dict[str, Any]:
    """The arguments of `Access.create`; invalid fields are added to the faults."""
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
    """The names in the scope field, without duplicates."""
    return tuple(dict.fromkeys(_NAME.findall(form.get("endpoints", ""))))


def _form_of(key: Key) -> dict[str, str]:
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
    """The date in the gateway's time zone, as browsers send dates."""
    return "" if seconds is None else time.strftime("%Y-%m-%d", time.localtime(seconds))


def _end_of(day: str, faults: dict[str, str]) -> float | None:
    """The last second of a date in the gateway's time zone."""
    if not day:
        return None
    try:
        start = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
        return start.replace(hour=23, minute=59, second=59, tzinfo=None).astimezone().timestamp()
    except (ValueError, OverflowError):  # the first and last years have dates outside the range of timestamps
        faults["expires"] = "fault.day"
        return None
