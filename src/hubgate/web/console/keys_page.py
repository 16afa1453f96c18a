"""The keys page: who may call the gate, and what each may do."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hubgate.domain.calls import InputType
from hubgate.domain.errors import HubgateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from hubgate.service.access import Access
    from hubgate.service.gateway import Gateway
    from hubgate.web.console.visit import Visit

_LIMITS = ("requests_per_minute", "tokens_per_minute")
_MOST_OTHERS = 200


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
            for name in {*rights["endpoints"], *filter(None, [rights["default_endpoint"]])}:
                self._gateway.find(name)
            key, plain = await self._access.create(form.get("name", ""), **rights)
        except HubgateError as error:
            return self._page(visit, form=form, error=error, opened=True)
        return self._page(visit, made=key, plain=plain)

    async def ask_revoke(self, visit: Visit) -> Response:
        """The question whether to revoke a key."""
        return visit.page("revoke.html", key=self._access.find(visit.request.path_params["key"]))

    async def revoke(self, visit: Visit) -> Response:
        """Put a key out of force at once."""
        await self._access.revoke(visit.request.path_params["key"])
        return visit.go("/ui/keys")

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
        return visit.page(
            "keys.html",
            keys=self._access.list(),
            others=[endpoint.name for endpoint in self._gateway.endpoints()][:_MOST_OTHERS],
            input_types=list(InputType),
            now=time.time(),
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
    scope = () if admin else tuple(dict.fromkeys(form.get("endpoints", "").replace(",", " ").split()))
    return {
        "admin": admin,
        "bulk": form.get("class") == "bulk",
        "endpoints": scope,
        "default_endpoint": form.get("default_endpoint") or None,
        "input_type": InputType(form["input_type"]) if form.get("input_type") in set(InputType) else None,
        "expires_at": _end_of(form.get("expires", ""), faults),
        **limits,
    }


def _end_of(day: str, faults: dict[str, str]) -> float | None:
    """The last moment of a day in the gate's time zone, as browsers send days."""
    if not day:
        return None
    try:
        start = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        faults["expires"] = "fault.day"
        return None
    return start.replace(hour=23, minute=59, second=59, tzinfo=None).astimezone().timestamp()
