"""The console's own route map."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hubgate.domain.errors import NotFound
from hubgate.domain.ports import Hub
from hubgate.service.gateway import Gateway
from hubgate.service.keys.access import Access
from hubgate.web.admin.errors import render
from hubgate.web.console.audit import AuditPage
from hubgate.web.console.auth import Gatehouse
from hubgate.web.console.config import ConfigPage
from hubgate.web.console.keys import KeysPage
from hubgate.web.console.models.detail import ModelPage
from hubgate.web.console.models.edit import Editing
from hubgate.web.console.models.hub_picker import Picker
from hubgate.web.console.models.page import Models
from hubgate.web.console.models.trials import Trials
from hubgate.web.console.page_context import Visit
from hubgate.web.console.playground.page import Playground
from hubgate.web.console.session import NotedRefusals, Sessions
from hubgate.web.console.settings import SettingsPage
from hubgate.web.console.sign_in import SignIn
from hubgate.web.console.static_files import serve_file
from hubgate.web.console.usage.page import UsagePage
from hubgate.web.http.face import Face, Services

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def _owns(segments: Sequence[str], headers: Mapping[bytes, bytes]) -> bool:
    return segments[0] == "ui"


def _routes(services: Services) -> Sequence[BaseRoute]:
    return console_routes(services)


def console_routes(services: Services, *, clock: Callable[[], float] = time.time) -> list[BaseRoute]:
    """Everything below `/ui`. The clock gives seconds since the epoch, for sessions."""
    gateway, access = services.gateway, services.access
    hub, configuration = services.hub, services.configuration
    house = Gatehouse(access, Sessions(clock))
    door = SignIn(access, house, NotedRefusals(time.monotonic), gateway.audit)
    models = Models(gateway, access)
    model = ModelPage(gateway, models)
    settings, config = SettingsPage(gateway), ConfigPage(configuration)
    inside, outside = house.inside, house.outside
    return [
        Route("/ui", _home, methods=["GET"]),
        Route("/ui/static/{file}", serve_file, methods=["GET"]),
        outside("GET", "/ui/sign-in", door.show),
        outside("POST", "/ui/sign-in", door.enter),
        outside("POST", "/ui/preferences", door.prefer),
        inside("POST", "/ui/sign-out", door.leave),
        inside("GET", "/ui/models", models.show),
        inside("GET", "/ui/models/states", models.states, by_itself=True),
        *_form(house, gateway, hub),
        inside("GET", "/ui/models/{name}/overview", model.show),
        inside("GET", "/ui/models/{name}/state", model.state, by_itself=True),
        inside("POST", "/ui/models/{name}/enable", models.enable),
        inside("POST", "/ui/models/{name}/disable", models.disable),
        inside("POST", "/ui/models/{name}/accept", models.accept),
        inside("GET", "/ui/models/{name}/clone", models.ask_clone),
        inside("POST", "/ui/models/{name}/clone", models.clone),
        inside("GET", "/ui/models/{name}/delete", models.ask_delete),
        inside("POST", "/ui/models/{name}/delete", models.delete),
        inside("GET", "/ui/models/{name}/export", config.export_model),
        *_keys(house, gateway, access),
        inside("GET", "/ui/settings", settings.show),
        inside("GET", "/ui/config/export", config.export),
        inside("POST", "/ui/config", config.apply),
        inside("POST", "/ui/connections", settings.connect),
        inside("GET", "/ui/connections/{name}", settings.ask_token),
        inside("POST", "/ui/connections/{name}", settings.reconnect),
        inside("POST", "/ui/connections/{name}/forget", settings.disconnect),
        *_calls(house, gateway, access),
        *(outside(method, "/ui/{rest:path}", _nothing) for method in _METHODS),
    ]


def _keys(house: Gatehouse, gateway: Gateway, access: Access) -> list[Route]:
    """The gateway keys."""
    keys, inside = KeysPage(gateway, access), house.inside
    return [
        inside("GET", "/ui/keys", keys.show),
        inside("GET", "/ui/keys/new", keys.ask_create),
        inside("POST", "/ui/keys/new", keys.create),
        inside("POST", "/ui/keys/names", keys.names),
        inside("POST", "/ui/keys/scope", keys.scope),
        inside("GET", "/ui/keys/{key}/edit", keys.ask_change),
        inside("POST", "/ui/keys/{key}/edit", keys.change),
        inside("GET", "/ui/keys/{key}/revoke", keys.ask_revoke),
        inside("POST", "/ui/keys/{key}/revoke", keys.revoke),
    ]


def _calls(house: Gatehouse, gateway: Gateway, access: Access) -> list[BaseRoute]:
    """Where calls are tried, and where they are counted."""
    play, usage, inside = Playground(gateway), UsagePage(gateway, access), house.inside
    return [
        inside("GET", "/ui/models/{name}/play", play.show),
        inside("POST", "/ui/models/{name}/play", play.run),
        inside("POST", "/ui/models/{name}/play/stream", play.stream),
        inside("POST", "/ui/models/{name}/play/copy", play.copy),
        inside("GET", "/ui/usage", usage.show),
        inside("GET", "/ui/usage.csv", usage.csv),
        inside("GET", "/ui/audit", AuditPage(gateway, access).show),
    ]


def _form(house: Gatehouse, gateway: Gateway, hub: Hub) -> list[Route]:
    """Adding a model and changing one."""
    picker, inside = Picker(hub, gateway.stored_tokens), house.inside
    editing = Editing(gateway, Trials(), picker)
    return [
        inside("GET", "/ui/models/new", editing.add),
        inside("POST", "/ui/models/new", editing.save),
        inside("POST", "/ui/models/test", editing.test),
        inside("POST", "/ui/paste", editing.paste),
        inside("GET", "/ui/hub", picker.show),
        inside("GET", "/ui/hub/models", picker.search),
        inside("POST", "/ui/models/pick", editing.pick),
        inside("POST", "/ui/models/{name}/pick", editing.pick),
        inside("POST", "/ui/chunks", editing.preview),
        inside("GET", "/ui/trials/{trial}", editing.watch, by_itself=True),
        inside("GET", "/ui/models/{name}/edit", editing.change),
        inside("POST", "/ui/models/{name}/edit", editing.save),
        inside("POST", "/ui/models/{name}/test", editing.test),
    ]


async def _home(_: Request) -> Response:
    return RedirectResponse("/ui/models", 303)


async def _nothing(_: Visit) -> Response:
    raise NotFound("The console has no such page.", remedy="Go on from its first page.")


FACE = Face(name="console", owns=_owns, render_error=render, routes=_routes)
