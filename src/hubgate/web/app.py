"""All faces, and the ASGI application that serves them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route

from hubgate.core.byte_budget import ByteBudget
from hubgate.domain.ports import Hub
from hubgate.service.gateway import Gateway
from hubgate.service.inference.vector_cache import VectorMemory
from hubgate.service.keys.access import Access
from hubgate.service.metrics import Meter
from hubgate.service.shared_values import SharedValues
from hubgate.web.admin import routes as admin
from hubgate.web.cohere import routes as cohere
from hubgate.web.console import routes as console
from hubgate.web.elastic import routes as elastic
from hubgate.web.http.asgi import AsgiApp
from hubgate.web.http.dispatch import Dispatch
from hubgate.web.http.face import Services
from hubgate.web.http.guard import Guard
from hubgate.web.http.health import Health
from hubgate.web.huggingface import routes as huggingface
from hubgate.web.openai import routes as openai
from hubgate.web.parts import Parts
from hubgate.web.responses import routes as responses
from hubgate.web.schemas.configuration import Configuration

FACES = (
    elastic.FACE,
    cohere.FACE,
    responses.FACE,
    openai.WITH_DETAIL,
    openai.FACE,
    huggingface.FACE,
    console.FACE,
    admin.FACE,
)
"""A path belongs to the first face that owns it."""


@dataclass(frozen=True, slots=True)
class Application:
    app: AsgiApp
    gateway: Gateway
    background: Sequence[Callable[[], Coroutine[Any, Any, None]]]
    """What runs as long as the gateway serves."""
    access: Access
    replies: ByteBudget
    first_admin_key: str | None
    """The admin key generated at the very first start, to be shown only once."""


def create_app(
    gateway: Gateway,
    access: Access,
    meter: Meter,
    memory: VectorMemory | None,
    *,
    hub: Hub,
    max_body_bytes: int,
    max_total_body_bytes: int,
    replies: ByteBudget | None = None,
    keys_in_path: bool,
    cookie_keys: Sequence[bytes] = (),
    shared: SharedValues | None = None,
    parts: Parts,
) -> Guard:
    services = Services(
        gateway=gateway,
        access=access,
        memory=memory,
        hub=hub,
        configuration=Configuration(gateway, access),
        cookie_keys=cookie_keys,
        shared=shared or SharedValues(),
        parts=parts,
    )
    health = Health(gateway, meter)
    routes = [
        Route("/", health.front, methods=["GET"]),
        Route("/healthz", health.alive),
        Route("/readyz", health.ready),
        Route("/metrics", health.metrics),
        *parts.routes,
        *(route for face in FACES for route in face.routes(services)),
    ]
    return Guard(
        Dispatch(routes, access.limits, gateway.gates, access.rounds if gateway.gates else None),
        FACES,
        access,
        meter,
        visible=gateway.visible,
        max_body_bytes=max_body_bytes,
        max_total_body_bytes=max_total_body_bytes,
        replies=replies,
        keys_in_path=keys_in_path,
        finished=parts.finished,
    )
