"""The routes of the console."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from hubgate.domain.errors import NotFound
from hubgate.web.console.auth import SIGN_IN, ConsoleAuth
from hubgate.web.console.keys import KeysPage
from hubgate.web.console.models.detail import ModelPage
from hubgate.web.console.models.edit import Editing
from hubgate.web.console.models.hub_picker import Picker
from hubgate.web.console.models.page import Models
from hubgate.web.console.models.trials import Trials
from hubgate.web.console.page_context import HOME, NAVIGATION, PageContext
from hubgate.web.console.playground.page import PlaygroundPage
from hubgate.web.console.session import RefusalRecordLimit, Sessions
from hubgate.web.console.settings import AuditPage, ConfigurationPage, SettingsPage
from hubgate.web.console.sign_in import SignInPage
from hubgate.web.console.static_files import serve_file
from hubgate.web.http.errors import render_error
from hubgate.web.http.face import Face, Services

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def console_routes(services: Services, *, clock: Callable[[], float] = time.time) -> list[BaseRoute]:
    """All routes below `/ui`.

    Args:
        services: what the pages use.
        clock: seconds since the epoch, for sessions.
    """
    navigation = sorted([*NAVIGATION, *services.parts.navigation])
    sessions = Sessions(clock, services.cookie_keys, services.shared)
    auth = ConsoleAuth(services.access, sessions, navigation)
    record_limit = RefusalRecordLimit(time.monotonic, services.shared)
    sign_in = SignInPage(services.access, auth, record_limit, services.gateway)
    return [
        Route("/ui", _home, methods=["GET"]),
        Route("/ui/static/{file}", serve_file, methods=["GET"]),
        auth.public("GET", SIGN_IN, sign_in.show),
        auth.public("POST", SIGN_IN, sign_in.sign_in),
        auth.public("POST", "/ui/preferences", sign_in.set_preferences),
        auth.private("POST", "/ui/sign-out", sign_in.sign_out),
        *_models(auth, services),
        *_model_form(auth, services),
        *_keys(auth, services),
        *_playground(auth, services),
        *_settings(auth, services),
        *(
            auth.private(page.method, page.path, page.handler, polling=page.polling, upload=page.upload)
            for page in services.parts.pages
        ),
        *(auth.public(method, "/ui/{rest:path}", _not_found) for method in _METHODS),
    ]


def _models(auth: ConsoleAuth, services: Services) -> list[Route]:
    models = Models(services.gateway, services.access)
    model = ModelPage(services.gateway, models)
    configuration = ConfigurationPage(services.configuration)
    return [
        auth.private("GET", "/ui/models", models.show),
        auth.private("GET", "/ui/models/states", models.states, polling=True),
        auth.private("GET", "/ui/models/{name}/overview", model.show),
        auth.private("GET", "/ui/models/{name}/state", model.state, polling=True),
        auth.private("POST", "/ui/models/{name}/enable", models.enable),
        auth.private("POST", "/ui/models/{name}/disable", models.disable),
        auth.private("POST", "/ui/models/{name}/accept", models.accept),
        auth.private("GET", "/ui/models/{name}/clone", models.ask_clone),
        auth.private("POST", "/ui/models/{name}/clone", models.clone),
        auth.private("GET", "/ui/models/{name}/delete", models.ask_delete),
        auth.private("POST", "/ui/models/{name}/delete", models.delete),
        auth.private("GET", "/ui/models/{name}/export", configuration.export_model),
    ]


def _model_form(auth: ConsoleAuth, services: Services) -> list[Route]:
    picker = Picker(services.hub, services.gateway.connections.by_name)
    editing = Editing(services.gateway, Trials(services.shared), picker)
    return [
        auth.private("GET", "/ui/models/new", editing.add),
        auth.private("POST", "/ui/models/new", editing.save),
        auth.private("POST", "/ui/models/test", editing.test),
        auth.private("POST", "/ui/paste", editing.paste),
        auth.private("GET", "/ui/hub", picker.show),
        auth.private("GET", "/ui/hub/models", picker.search),
        auth.private("POST", "/ui/models/pick", editing.pick),
        auth.private("POST", "/ui/models/{name}/pick", editing.pick),
        auth.private("POST", "/ui/chunks", editing.preview),
        auth.private("GET", "/ui/trials/{trial}", editing.watch, polling=True),
        auth.private("GET", "/ui/models/{name}/edit", editing.change),
        auth.private("POST", "/ui/models/{name}/edit", editing.save),
        auth.private("POST", "/ui/models/{name}/test", editing.test),
    ]


def _keys(auth: ConsoleAuth, services: Services) -> list[Route]:
    keys = KeysPage(services.gateway, services.access)
    return [
        auth.private("GET", "/ui/keys", keys.show),
        auth.private("GET", "/ui/keys/new", keys.new),
        auth.private("POST", "/ui/keys/new", keys.create),
        auth.private("POST", "/ui/keys/names", keys.suggest_models),
        auth.private("POST", "/ui/keys/scope", keys.add_to_scope),
        auth.private("GET", "/ui/keys/{key}/edit", keys.edit),
        auth.private("POST", "/ui/keys/{key}/edit", keys.update),
        auth.private("GET", "/ui/keys/{key}/revoke", keys.confirm_revoke),
        auth.private("POST", "/ui/keys/{key}/revoke", keys.revoke),
    ]


def _playground(auth: ConsoleAuth, services: Services) -> list[Route]:
    playground = PlaygroundPage(services.gateway)
    return [
        auth.private("GET", "/ui/models/{name}/play", playground.show),
        auth.private("POST", "/ui/models/{name}/play", playground.run),
        auth.private("POST", "/ui/models/{name}/play/stream", playground.stream),
        auth.private("POST", "/ui/models/{name}/play/copy", playground.copy),
    ]


def _settings(auth: ConsoleAuth, services: Services) -> list[Route]:
    settings = SettingsPage(services.gateway, services.memory)
    configuration = ConfigurationPage(services.configuration)
    audit = AuditPage(services.gateway, services.access, services.parts.audit_verbs)
    return [
        auth.private("GET", "/ui/settings", settings.show),
        auth.private("POST", "/ui/connections", settings.connect),
        auth.private("GET", "/ui/connections/{name}", settings.edit),
        auth.private("POST", "/ui/connections/{name}", settings.update),
        auth.private("POST", "/ui/connections/{name}/forget", settings.disconnect),
        auth.private("GET", "/ui/config/export", configuration.export),
        auth.private("POST", "/ui/config", configuration.apply),
        auth.private("GET", "/ui/audit", audit.show),
    ]


async def _home(_: Request) -> Response:
    return RedirectResponse(HOME, 303)


async def _not_found(_: PageContext) -> Response:
    raise NotFound("The console has no such page.", remedy="Go back to its first page.")


def _owns(segments: Sequence[str], is_hugging_face: bool) -> bool:
    return segments[0] == "ui"


FACE = Face(name="console", owns=_owns, render_error=render_error, routes=console_routes)
